// The standard headers and Boost.JSON, compiled once for the modules that read and write it.
#pragma once

#include "pch.h"

#include <boost/json.hpp>
