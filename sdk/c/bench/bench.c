/* Speed of calls from this host to a plugin's command "echo", beside that of a plain ping-pong over two pipes.
 *
 *     bench [SECONDS] PLUGIN...
 *
 * sequential: one call after the other. concurrent: 64 threads, each with one call after the other. pipelined: one thread
 * with 64 calls in flight. one-mib: one call after the other with 1 MiB of data, both ways. The floor writes and reads as
 * many bytes as those calls, with nothing around them, and blocks. All take turns in seven rounds, which share the
 * seconds; the best one of each counts, since other work on the machine makes a rate smaller and never larger.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pipeplug.h"

enum { THREADS = 64, MIB = 1 << 20, SMALL = 16, SUBJECTS = 8, ROUNDS = 7 };

static double seconds = 2;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int transfer(int fd, char *data, size_t len, int writes) {
    while (len > 0) {
        ssize_t n = writes ? write(fd, data, len) : read(fd, data, len);
        if (n <= 0) return 0;
        data += n;
        len -= (size_t)n;
    }
    return 1;
}

/* Rate of a ping-pong with another process. */
static double floor_rate(size_t len) {
    int to[2], from[2];
    char *data = malloc(len);
    double began, rate = 0;
    long count = 0;
    pid_t pid;
    if (data == NULL || pipe(to) != 0 || pipe(from) != 0) return 0;
    memset(data, 'x', len);
    pid = fork();
    if (pid == 0) {
        close(to[1]);
        close(from[0]);
        while (transfer(to[0], data, len, 0) && transfer(from[1], data, len, 1)) continue;
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    began = now();
    while (now() - began < seconds && transfer(to[1], data, len, 1) && transfer(from[0], data, len, 0)) count++;
    rate = (double)count / (now() - began);
    close(to[1]);
    close(from[0]);
    waitpid(pid, NULL, 0);
    free(data);
    return rate;
}

struct caller {
    ppg_peer *plugin;
    size_t len;
    double until;
    long count;
    int failed;
};

static void *call(void *of) {
    struct caller *it = of;
    char *data = malloc(it->len);
    if (data == NULL) return NULL;
    memset(data, 'x', it->len);
    while (now() < it->until) {
        ppg_reply *reply = NULL;
        ppg_error error;
        if (ppg_call(it->plugin, "echo", data, it->len, NULL, &reply, &error) != PPG_OK || ppg_reply_len(reply) != it->len) {
            fprintf(stderr, "bench: %s\n", error.message);
            it->failed = 1;
            break;
        }
        ppg_reply_free(reply);
        it->count++;
    }
    free(data);
    return NULL;
}

static double rate_of(ppg_peer *plugin, int threads, size_t len) {
    struct caller callers[THREADS];
    pthread_t ids[THREADS];
    double began = now(), count = 0;
    int i;
    for (i = 0; i < threads; i++) {
        struct caller it = {NULL, 0, 0, 0, 0};
        callers[i] = it;
        callers[i].plugin = plugin;
        callers[i].len = len;
        callers[i].until = began + seconds;
        if (threads > 1 && pthread_create(&ids[i], NULL, call, &callers[i]) != 0) exit(1);
    }
    if (threads == 1) call(&callers[0]);
    for (i = 0; i < threads; i++) {
        if (threads > 1) pthread_join(ids[i], NULL);
        count += (double)callers[i].count;
        if (callers[i].failed) exit(1);
    }
    return count / (now() - began);
}

static double pipelined(ppg_peer *plugin) {
    ppg_pending *open[THREADS] = {NULL};
    double began = now();
    long count = 0;
    char data[SMALL];
    int at = 0, i;
    memset(data, 'x', sizeof data);
    while (now() - began < seconds) {
        if (open[at] != NULL) {
            ppg_reply *reply = NULL;
            if (ppg_wait(open[at], -1, &reply, NULL) != PPG_OK) exit(1);
            ppg_reply_free(reply);
            ppg_pending_free(open[at]);
            count++;
        }
        if (ppg_begin(plugin, "echo", data, sizeof data, NULL, &open[at], NULL) != PPG_OK) exit(1);
        at = (at + 1) % THREADS;
    }
    for (i = 0; i < THREADS; i++) ppg_pending_free(open[i]);
    return (double)count / (now() - began);
}

static double larger(double a, double b) { return a > b ? a : b; }

int main(int argc, char **argv) {
    double best[SUBJECTS][4] = {{0}};
    int first = 1, i, round;
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strtod(argv[1], NULL) > 0) seconds = strtod(argv[first++], NULL);
    if (argc - first >= SUBJECTS) argc = first + SUBJECTS - 1;
    seconds /= ROUNDS;
    for (round = 0; round < ROUNDS; round++) {
        /* 33 bytes: a chunk with 16 bytes of data. */
        best[0][0] = larger(best[0][0], floor_rate(33));
        best[0][3] = larger(best[0][3], floor_rate(MIB + 20));
        for (i = first; i < argc; i++) {
            double *of = best[i - first + 1];
            ppg_peer *plugin = ppg_plugin_new(argv[i]);
            ppg_error error;
            if (ppg_plugin_start(plugin, &error) != PPG_OK) {
                fprintf(stderr, "bench: %s\n", error.message);
                return 1;
            }
            of[0] = larger(of[0], rate_of(plugin, 1, SMALL));
            of[1] = larger(of[1], rate_of(plugin, THREADS, SMALL));
            of[2] = larger(of[2], pipelined(plugin));
            of[3] = larger(of[3], rate_of(plugin, 1, MIB));
            ppg_free(plugin);
        }
    }
    printf("%-32s %12s %12s %12s %12s\n", "calls a second", "sequential", "concurrent", "pipelined", "one-mib");
    printf("%-32s %12.0f %12s %12s %12.0f\n", "floor: write and read", best[0][0], "", "", best[0][3]);
    for (i = first; i < argc; i++) {
        double *of = best[i - first + 1];
        printf("%-32s %12.0f %12.0f %12.0f %12.0f\n", argv[i], of[0], of[1], of[2], of[3]);
    }
    return 0;
}
