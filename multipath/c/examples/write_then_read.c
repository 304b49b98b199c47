/* Writes a block of a volume and reads it back. Each argument is a path to it:
 *   cc write_then_read.c -I../include -lpollux && ./a.out 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pollux.h"

static void check(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, pollux_error());
        exit(1);
    }
}

/* Submits an I/O and waits for its end in an event loop, of which this is all. */
static void run(pollux_disk disk, struct pollux_io io) {
    struct pollux_completion done;
    struct pollfd fd = {.fd = pollux_disk_event_fd(disk), .events = POLLIN};
    check(fd.fd, "event_fd");
    check(pollux_disk_submit(disk, &io), "submit");
    int taken;
    while ((taken = pollux_disk_poll(disk, &done, 1)) == 0)
        poll(&fd, 1, -1);
    check(taken, "poll");
    if (done.result < 0) {
        fprintf(stderr, "it ended with %s, status %" PRIx32 "h\n", strerror(-done.result), done.status);
        exit(1);
    }
}

int main(int argc, char **argv) {
    pollux_host host;
    pollux_disk disk;
    struct pollux_disk_info info;

    check(pollux_host_start(-1, 100, 1, &host), "start");
    for (int i = 1; i < argc; i++)
        check(pollux_host_attach(host, "disk0", argv[i]), "attach");
    check(pollux_disk_open(host, "disk0n1", 32, 1000, &disk), "open");
    check(pollux_disk_get_info(disk, &info), "info");

    char *buffer = malloc(info.block_size);
    memset(buffer, '*', info.block_size);
    struct pollux_io io = {.op = POLLUX_WRITE, .lba = 7, .blocks = 1, .buffer = buffer, .length = info.block_size};
    run(disk, io);
    memset(buffer, 0, info.block_size);
    io.op = POLLUX_READ;
    run(disk, io);
    printf("read %.4s\n", buffer);

    free(buffer);
    check(pollux_disk_close(disk), "close");
    check(pollux_host_stop(host, 5000), "stop");
    return 0;
}
