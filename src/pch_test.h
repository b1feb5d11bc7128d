// The standard headers and GoogleTest, compiled once for all tests.
#pragma once

#include "pch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
