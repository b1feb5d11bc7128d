// Asio's own code, compiled once: the other sources see its declarations only.
#include <boost/asio/impl/src.hpp>
