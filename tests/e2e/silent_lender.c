// A lender that greets as GGML's RPC servers do and then never says anything. Prints its address.
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void* serve(void* argument) {
  const int client = (int)(long)argument;
  char greeting[33];
  size_t got = 0;
  while (got < sizeof(greeting)) {
    const ssize_t n = read(client, greeting + got, sizeof(greeting) - got);
    if (n <= 0) return NULL;
    got += (size_t)n;
  }
  // The size of what follows, version 8, and nothing that it can do.
  char reply[36] = {28, 0, 0, 0, 0, 0, 0, 0, 8};
  if (write(client, reply, sizeof(reply)) < 0) return NULL;
  pause();
  return NULL;
}

int main(void) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address;
  memset(&address, 0, sizeof(address));
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(listener, (struct sockaddr*)&address, sizeof(address)) != 0 ||
      listen(listener, 16) != 0 ||
      getsockname(listener, (struct sockaddr*)&address, &length) != 0) {
    perror("silent_lender");
    return 1;
  }
  printf("127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  alarm(240);  // it outlives nobody for long
  while (1) {
    const int client = accept(listener, NULL, NULL);
    pthread_t thread;
    if (client >= 0 && pthread_create(&thread, NULL, serve, (void*)(long)client) == 0)
      pthread_detach(thread);
  }
}
