/* Makes syncs slow: each first waits as many milliseconds as stand in the file that HEADROOM_TEST_SYNC_MS names. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_first(void) {
    const char *path = getenv("HEADROOM_TEST_SYNC_MS");
    FILE *file = path ? fopen(path, "r") : NULL;
    long ms = 0;
    if (!file) return;
    if (fscanf(file, "%ld", &ms) != 1) ms = 0;
    fclose(file);
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
}

int fsync(int fd) {
    wait_first();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_first();
    return (int)syscall(SYS_fdatasync, fd);
}
