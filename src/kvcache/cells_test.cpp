#include "kvcache/cells.h"

#include <gtest/gtest.h>
