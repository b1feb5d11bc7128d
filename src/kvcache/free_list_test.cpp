#include "kvcache/free_list.h"

#include <gtest/gtest.h>
