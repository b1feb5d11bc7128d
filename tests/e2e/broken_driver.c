// A Vulkan driver that ends the process that loads it. See devices.sh.
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void fail(void) {
  fputs("broken_driver: error: this driver is broken\n", stderr);
  abort();
}
