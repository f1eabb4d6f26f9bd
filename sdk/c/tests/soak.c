/* Calls of random sizes against a plugin's command "echo", with cancellations, deadlines and kills, from several threads.
 * Each call has one outcome, and that of a call which was neither given up nor hit by a kill is its own data.
 *
 *     soak [CALLS [SEED [LARGEST]]] PLUGIN [COMMAND]
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pipeplug.h"

enum { THREADS = 8, KILLS = 10 };

struct soak {
    const char *path, *command;
    unsigned long seed, largest;
    int calls;
    pthread_mutex_t lock;
    int finished; /* calls with this plugin */
    ppg_peer *plugin;
};

struct worker {
    struct soak *soak;
    int calls, number;
    long answered, cancelled, late, lost, wrong;
};

/* xorshift, so that each thread has its own sequence from the seed. */
static unsigned long next(unsigned long *state) {
    unsigned long x = *state & 0xffffffffUL;
    x ^= x << 13 & 0xffffffffUL;
    x ^= x >> 17;
    x ^= x << 5 & 0xffffffffUL;
    return *state = x & 0xffffffffUL;
}

static void fill(unsigned char *data, size_t len, unsigned long seed) {
    size_t i;
    for (i = 0; i < len; i++) data[i] = (unsigned char)(seed + i * 31);
}

static void *work(void *of) {
    struct worker *worker = of;
    struct soak *soak = worker->soak;
    unsigned long state = soak->seed * 2654435761UL + (unsigned long)worker->number + 1;
    unsigned char *data = malloc(1 << 20);
    int i;
    for (i = 0; data != NULL && i < worker->calls; i++) {
        unsigned long kind = next(&state) % 100, size = next(&state) % 100;
        size_t len = size < 80 ? next(&state) % 200 : size < 98 ? next(&state) % 20000 : next(&state) % (1 << 20);
        if (len > soak->largest) len %= soak->largest;
        ppg_call_options options = PPG_CALL_OPTIONS_INIT;
        ppg_pending *pending = NULL;
        ppg_reply *reply = NULL;
        ppg_status status;
        fill(data, len, state);
        if (kind < 10) options.timeout_ms = (int)(next(&state) % 3);
        status = ppg_begin(soak->plugin, soak->command, data, len, &options, &pending, NULL);
        if (status == PPG_OK) {
            if (kind >= 10 && kind < 20) ppg_cancel(pending);
            status = ppg_wait(pending, 30000, &reply, NULL);
        }
        ppg_pending_free(pending);
        pthread_mutex_lock(&soak->lock);
        soak->finished++;
        pthread_mutex_unlock(&soak->lock);
        if (status == PPG_OK && ppg_reply_len(reply) == len && memcmp(ppg_reply_data(reply), data, len) == 0)
            worker->answered++;
        else if (status == PPG_ECANCELLED && kind >= 10 && kind < 20)
            worker->cancelled++;
        else if ((status == PPG_ETIMEOUT || status == PPG_EPEER) && kind < 10)
            worker->late++; /* refused by the plugin, or given up here */
        else if (status == PPG_ECLOSED || status == PPG_EBROKEN)
            worker->lost++;
        else
            worker->wrong++;
        ppg_reply_free(reply);
    }
    free(data);
    return NULL;
}


static void quiet(const char *line, void *user) {
    (void)line;
    (void)user;
}

int main(int argc, char **argv) {
    struct soak soak = {NULL, "echo", 1, 1 << 20, 10000, PTHREAD_MUTEX_INITIALIZER, 0, NULL};
    struct worker workers[THREADS], sum;
    pthread_t threads[THREADS];
    int first = 1, i, kills;
    long done;
    signal(SIGPIPE, SIG_IGN);
    if (argc > first + 1 && atoi(argv[first]) > 0) soak.calls = atoi(argv[first++]);
    if (argc > first + 1 && strtoul(argv[first], NULL, 10) > 0) soak.seed = strtoul(argv[first++], NULL, 10);
    if (argc > first + 1 && strtoul(argv[first], NULL, 10) > 0) soak.largest = strtoul(argv[first++], NULL, 10);
    if (argc <= first) {
        fputs("usage: soak [CALLS [SEED [LARGEST]]] PLUGIN [COMMAND]\n", stderr);
        return 2;
    }
    soak.path = argv[first];
    if (argc > first + 1) soak.command = argv[first + 1];
    memset(&sum, 0, sizeof sum);
    for (kills = 0; kills <= KILLS; kills++) {
        int calls = soak.calls / (KILLS + 1) / THREADS + 1;
        soak.finished = 0;
        soak.plugin = ppg_plugin_new(soak.path);
        ppg_plugin_on_line(soak.plugin, quiet, NULL);
        {
            ppg_error error;
            if (ppg_plugin_start(soak.plugin, &error) != PPG_OK) {
                fprintf(stderr, "soak: %s\n", error.message);
                return 1;
            }
        }
        for (i = 0; i < THREADS; i++) {
            memset(&workers[i], 0, sizeof workers[i]);
            workers[i].soak = &soak;
            workers[i].calls = calls;
            workers[i].number = kills * THREADS + i;
            if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0) return 1;
        }
        if (kills < KILLS) {
            /* In the midst of its calls. */
            unsigned long state = soak.seed + (unsigned long)kills * 7919 + 1;
            int half = calls * THREADS / 2, until = half + (int)(next(&state) % (unsigned long)half), finished;
            do {
                struct timespec pause = {0, 1000000};
                nanosleep(&pause, NULL);
                pthread_mutex_lock(&soak.lock);
                finished = soak.finished;
                pthread_mutex_unlock(&soak.lock);
            } while (finished < until);
            ppg_plugin_kill(soak.plugin);
        }
        for (i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            sum.calls += workers[i].calls;
            sum.answered += workers[i].answered;
            sum.cancelled += workers[i].cancelled;
            sum.late += workers[i].late;
            sum.lost += workers[i].lost;
            sum.wrong += workers[i].wrong;
        }
        ppg_free(soak.plugin);
    }
    done = sum.answered + sum.cancelled + sum.late + sum.lost + sum.wrong;
    printf("soak: seed %lu: %d calls: %ld answered, %ld cancelled, %ld late, %ld lost to %d kills, %ld wrong\n", soak.seed,
           sum.calls, sum.answered, sum.cancelled, sum.late, sum.lost, KILLS, sum.wrong);
    if (done != sum.calls || sum.wrong > 0 || sum.answered == 0) {
        fprintf(stderr, "soak: %ld calls without an outcome\n", sum.calls - done);
        return 1;
    }
    return 0;
}
