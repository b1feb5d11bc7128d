// Leaves a mark when it is loaded: see planted_library.sh.
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void mark(void) {
  const char* path = getenv("PLANTED_MARK");
  FILE* file = path ? fopen(path, "w") : NULL;
  if (file) fclose(file);
}
