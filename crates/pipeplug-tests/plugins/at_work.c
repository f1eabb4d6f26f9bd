/* A plugin on standard input and output that does what programs in C do: `work` answers with the names of the parts that
 * went well, or says which one did not. It is built with glibc and musl, dynamic and static. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* Leaves the function with the number of the line where something is not so. */
#define CHECK(holds) do { if (!(holds)) return __LINE__; } while (0)

static void *add(void *sum)
{
    __atomic_fetch_add((int *)sum, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static int threads(void)
{
    pthread_t all[8];
    int sum = 0;
    for (int n = 0; n < 8; n++)
        CHECK(pthread_create(&all[n], NULL, add, &sum) == 0);
    for (int n = 0; n < 8; n++)
        CHECK(pthread_join(all[n], NULL) == 0);
    CHECK(sum == 8);
    cpu_set_t cpus;
    CHECK(pthread_getaffinity_np(pthread_self(), sizeof cpus, &cpus) == 0);
    return 0;
}

static int programs(void)
{
    int status, ends[2];
    char text[8], *arguments[] = {"echo", "hi", NULL};
    pid_t child;
    posix_spawn_file_actions_t actions;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    CHECK(posix_spawn(&child, "/bin/echo", &actions, NULL, arguments, environ) == 0);
    CHECK(read(ends[0], text, sizeof text) == 3 && waitpid(child, &status, 0) == child && status == 0);
    child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    CHECK(child > 0 && kill(child, SIGTERM) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(WEXITSTATUS(system("exit 3")) == 3);
    FILE *pipe = popen("echo hi | cat", "r");
    CHECK(pipe && fgets(text, sizeof text, pipe) && pclose(pipe) == 0 && strcmp(text, "hi\n") == 0);
    return 0;
}

static int files(void)
{
    char path[4096], other[4100];
    struct stat status;
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/at-work-XXXXXX", dir ? dir : "/tmp");
    int file = mkstemp(path);
    CHECK(file >= 0 && ftruncate(file, 8192) == 0 && posix_fallocate(file, 0, 8192) == 0);
    char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(memory != MAP_FAILED);
    memory[0] = 'x';
    CHECK(msync(memory, 8192, MS_SYNC) == 0 && munmap(memory, 8192) == 0);
    CHECK(lockf(file, F_LOCK, 0) == 0 && fsync(file) == 0 && fstat(file, &status) == 0);
    snprintf(other, sizeof other, "%s-2", path);
    CHECK(rename(path, other) == 0 && unlink(other) == 0 && close(file) == 0);
    CHECK(!isatty(0));
    return 0;
}

static int sockets(void)
{
    int ends[2];
    char text[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK(send(ends[0], "x", 1, MSG_NOSIGNAL) == 1 && recv(ends[1], text, 2, 0) == 1);
    struct iovec part = {text, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &ends[0], sizeof(int));
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(sendmsg(ends[0], &message, 0) == 1 && recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC) == 1);
    CHECK(shutdown(ends[0], SHUT_WR) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    return 0;
}

static int waiting(void)
{
    struct timespec moment = {0, 1000000};
    struct itimerspec once = {.it_value = moment};
    struct epoll_event event = {.events = EPOLLIN};
    sigset_t signals;
    int events = eventfd(1, EFD_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, 0), queue = epoll_create1(0);
    CHECK(events >= 0 && timer >= 0 && timerfd_settime(timer, 0, &once, NULL) == 0);
    CHECK(epoll_ctl(queue, EPOLL_CTL_ADD, timer, &event) == 0 && epoll_wait(queue, &event, 1, 10000) == 1);
    struct pollfd polled = {events, POLLIN, 0};
    CHECK(poll(&polled, 1, 10000) == 1 && ppoll(&polled, 1, &moment, NULL) == 1);
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &signals, NULL) == 0);
    CHECK(signalfd(-1, &signals, 0) >= 0 && raise(SIGUSR1) == 0 && sigwaitinfo(&signals, NULL) == SIGUSR1);
    timer_t own;
    CHECK(timer_create(CLOCK_MONOTONIC, NULL, &own) == 0 && timer_delete(own) == 0);
    sem_t semaphore;
    CHECK(sem_init(&semaphore, 0, 1) == 0 && sem_wait(&semaphore) == 0);
    CHECK(nanosleep(&moment, NULL) == 0 && clock_nanosleep(CLOCK_REALTIME, 0, &moment, NULL) == 0);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && sysconf(_SC_NPROCESSORS_ONLN) > 0);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} parts[] = {{"threads", threads}, {"programs", programs}, {"files", files}, {"sockets", sockets}, {"waiting", waiting}};

static unsigned long number(void)
{
    unsigned long value = 0;
    int digit;
    while ((digit = getchar()) > 0)
        value = value * 10 + digit - '0';
    if (digit == EOF)
        exit(1);
    return value;
}

static void text(char *buffer, size_t size)
{
    size_t length = number();
    for (size_t n = 0; n < length; n++) {
        int byte = getchar();
        if (n < size - 1)
            buffer[n] = byte;
    }
    buffer[length < size - 1 ? length : size - 1] = 0;
}

int main(void)
{
    char cmd[256], buffer[256], reply[256];
    for (;;) {
        unsigned long id = number(), direction = number();
        text(cmd, sizeof cmd);
        getchar();
        text(buffer, sizeof buffer);
        if (direction == 1 && strcmp(cmd, "cmd.stop") == 0)
            return 0;
        if (direction != 2)
            continue;
        reply[0] = 0;
        if (strcmp(cmd, "GetMetadata") == 0)
            strcpy(reply, "{\"Cmd\":\"at-work\"}");
        for (size_t n = 0; strcmp(cmd, "work") == 0 && n < sizeof parts / sizeof *parts; n++) {
            int line = parts[n].run();
            if (line == 0) {
                strcat(strcat(reply, n ? " " : ""), parts[n].name);
                continue;
            }
            snprintf(reply, sizeof reply, "%s: line %d: %s", parts[n].name, line, strerror(errno));
            strcpy(cmd, "cmd.error");
        }
        printf("%lu%c3%c%zu%c%s%c%zu%c%s", id, 0, 0, strlen(cmd), 0, cmd, 0, strlen(reply), 0, reply);
        fflush(stdout);
    }
}
