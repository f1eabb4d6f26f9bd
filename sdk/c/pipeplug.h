/*
 * pipeplug: plugins as processes. A host starts a plugin, and both call each other over pipes.
 *
 *     static void echo(ppg_request *request, void *user) {
 *         (void)user;
 *         ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
 *     }
 *     int main(int argc, char **argv) {
 *         ppg_peer *host = ppg_guest_new(NULL);
 *         ppg_on(host, "echo", echo, NULL);
 *         return ppg_guest_run(host, argc, argv);
 *     }
 *
 * C99 and POSIX threads. All state is in a ppg_peer; the library has no globals. A function that can fail returns a
 * ppg_status, and fills a ppg_error if it gets one (NULL is allowed everywhere). Text in and out is UTF-8. Lengths are
 * in bytes.
 *
 * Threads. The first line of each part of this file says from which threads its functions may be called; those that
 * differ say so. "Any thread" includes handlers and several threads at once with the same object.
 *
 * Memory. Arguments are copied, or used only until the function returns: they stay the caller's. Only `user` pointers are
 * kept, and have to stay valid as long as the peer. Pointers that are returned as const belong to the library, and their
 * comment says how long they are valid. What is returned in any other way has the function that frees it in its comment.
 * Without memory a function fails with PPG_ENOMEM; if that loses a chunk that the other side waits for, the connection
 * ends, so that no call waits for ever.
 */
#ifndef PIPEPLUG_H
#define PIPEPLUG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PPG_VERSION "0.1.0"

/* Result of a function. */
typedef enum {
    PPG_OK = 0,
    PPG_END,          /* ppg_next_part: there are no more parts. Not an error */
    PPG_EINVAL,       /* an argument is wrong, or the call is not possible in this state */
    PPG_ENOMEM,       /* no memory */
    PPG_ESYSTEM,      /* a system call failed */
    PPG_ESTART,       /* the plugin did not start */
    PPG_ECLOSED,      /* the other side has ended, or the connection is closed */
    PPG_EBROKEN,      /* the other side sent something that is no chunk */
    PPG_EPEER,        /* the other side answered with an error: see ppg_reply_code and ppg_reply_text */
    PPG_ETIMEOUT,     /* the time is over */
    PPG_ECANCELLED,   /* the call was cancelled */
    PPG_ERESERVED,    /* the command begins with "cmd." and belongs to the protocol */
    PPG_EUNSUPPORTED, /* the other side does not have the feature */
    PPG_ELIMIT,       /* larger than a limit */
    PPG_EENOUGH,      /* the receiver of the parts wants no more of them */
    PPG_EABORTED      /* the sender of the parts has ended them early */
} ppg_status;

/* Error of a function, for people. */
typedef struct {
    ppg_status status;
    char message[1024]; /* lowercase, without a full stop; cut if it is longer */
} ppg_error;

/* Short name of a status, as in "timed out". Any thread; a constant. */
const char *ppg_status_text(ppg_status status);

/* A connection with the other side: with the host in a guest, with a plugin in a host. */
typedef struct ppg_peer ppg_peer;
/* A request or one-way of the other side, while it is handled. */
typedef struct ppg_request ppg_request;
/* A call of this side that is open. */
typedef struct ppg_pending ppg_pending;
/* Reply to a call. */
typedef struct ppg_reply ppg_reply;
/* Parts that follow or precede a call or request, in one or both directions. */
typedef struct ppg_stream ppg_stream;

/* Handles a request or one-way, which is valid until the handler returns or, if it was kept, is answered. Handlers
 * run on several threads at once (ppg_set_threads), and may block and call the other side. A request that has no
 * answer when its handler returns is answered with an error, unless it was kept. */
typedef void (*ppg_handler)(ppg_request *request, void *user);

/* ---- Settings, before the start. They return PPG_EINVAL after it ----
 * One thread at a time for each peer, before ppg_guest_run or ppg_plugin_start. */

/* Has a handler called for a command. NULL as the command stands for all others. */
ppg_status ppg_on(ppg_peer *peer, const char *command, ppg_handler handler, void *user);
/* Adds an entry to the metadata of this side. */
ppg_status ppg_set_metadata(ppg_peer *peer, const char *key, const char *value);
/* How many handlers may run at once. Default: 64. With 1, commands are handled in the order in which they were sent. */
ppg_status ppg_set_threads(ppg_peer *peer, unsigned threads);
/* Largest command and buffer to take. 0 leaves the default: 64 KiB and 256 MiB. */
ppg_status ppg_set_limits(ppg_peer *peer, size_t command, size_t buffer);
/* What this side holds of requests that wait, and of the parts of one stream. 0 leaves the default: 4 MiB and 1 MiB. */
ppg_status ppg_set_windows(ppg_peer *peer, uint64_t window, uint64_t stream_window);
/* Versions of the application's interface that this side speaks. The highest common one is used. */
ppg_status ppg_set_interface_versions(ppg_peer *peer, const uint32_t *versions, size_t count);
/* Adds a service: its name, its version, the oldest version that it still serves, and its description, the JSON object
 * of GetServices (docs/protocol.md). Its methods are commands "name.method" for ppg_on. */
ppg_status ppg_add_service(ppg_peer *peer, const char *name, uint32_t version, uint32_t oldest, const char *description);
/* Receives what the library has to say (one line, without a line feed, valid during the call), on any thread. It
 * must not call the library. Default: standard error. */
ppg_status ppg_on_warning(ppg_peer *peer, void (*warn)(const char *line, void *user), void *user);

/* ---- Guest: the side of the plugin ----
 * The settings as above; ppg_log, ppg_guest_args, ppg_guest_config and ppg_guest_log_level: any thread. */

/* A plugin's side, which ppg_guest_run frees, or ppg_free if that is not called. NULL as the name stands for that
 * of the program. NULL if there is no memory. */
ppg_peer *ppg_guest_new(const char *name);
/* Runs after the host's metadata have come and before any handler. What it returns other than 0 ends the plugin and
 * fails the host's start; the reason belongs on standard error. */
ppg_status ppg_guest_on_start(ppg_peer *guest, int (*start)(ppg_peer *host, void *user), void *user);
/* Runs once when the plugin is to end; lost is 0 after a stop, 1 when the host is gone. */
ppg_status ppg_guest_on_stop(ppg_peer *guest, void (*stop)(ppg_peer *host, int lost, void *user), void *user);
/* Time for handlers that still run at the end, in milliseconds. Default: 5000. */
ppg_status ppg_guest_set_grace(ppg_peer *guest, unsigned milliseconds);
/* Serves the host until the end, frees the guest, and returns the exit status for main: 0 after a stop, 1 if the
 * host is gone or the start call-back failed, 2 without a host. The descriptors come from the arguments ("3 4", "--
 * pipeplug-listen PATH"; argv has to stay until it returns); without them the guest uses stdin and stdout, and
 * moves them away first, so that printf goes to standard error. Ignores SIGPIPE. If handlers still run after the
 * grace time, it ends the process. */
int ppg_guest_run(ppg_peer *guest, int argc, char **argv);
/* The plugin's own arguments, those behind the descriptors; from the start call-back on. Ends with NULL. Valid as
 * long as the guest. */
char **ppg_guest_args(ppg_peer *guest);
/* Configuration that the host has sent, as JSON text; NULL if there is none. From the start call-back on. Valid as
 * long as the guest. */
const char *ppg_guest_config(ppg_peer *guest);

/* Levels of a log. */
typedef enum { PPG_LOG_OFF, PPG_LOG_ERROR, PPG_LOG_WARN, PPG_LOG_INFO, PPG_LOG_DEBUG, PPG_LOG_TRACE } ppg_log_level;
/* Writes a line to standard error, as JSON that hosts understand, if the host's level admits it. */
void ppg_log(ppg_peer *guest, ppg_log_level level, const char *message);
/* Level that the host has set. Default: PPG_LOG_INFO. */
ppg_log_level ppg_guest_log_level(ppg_peer *guest);

/* ---- Host: the side that starts the plugin ----
 * The settings, ppg_plugin_start and ppg_plugin_stop: one thread at a time for each plugin. ppg_plugin_log_level,
 * ppg_plugin_kill, ppg_plugin_wait and ppg_plugin_pid: any thread. Different plugins are independent. */

/* A plugin that does not run yet, which ppg_free frees. The path is relative to the working directory; PATH is not
 * searched. NULL if there is no memory. */
ppg_peer *ppg_plugin_new(const char *path);
/* Adds an argument of the plugin's own. */
ppg_status ppg_plugin_arg(ppg_peer *plugin, const char *arg);
/* Sets a variable of its environment. It has PATH, HOME, LANG, LC_*, TERM, TMPDIR, TZ and these. */
ppg_status ppg_plugin_env(ppg_peer *plugin, const char *name, const char *value);
/* Talks over its stdin and stdout, not over the descriptors 3 and 4. */
ppg_status ppg_plugin_use_stdio(ppg_peer *plugin);
/* Speaks the classic format, for plugins that are older than the standard format. The original Go package reads a
 * buffer with one read: it gets those whole that the pipe holds, 1 MiB or, where the system refuses that, 64 KiB.
 * It would be given a part of a larger one without a word, so a warning says so, once. */
ppg_status ppg_plugin_use_classic(ppg_peer *plugin);
/* Attaches to a plugin that waits at a socket (--pipeplug-listen PATH): the path of the plugin is that of the
 * socket. */
ppg_status ppg_plugin_attach(ppg_peer *plugin);
/* Configuration for the plugin: any JSON text of at most 1 MiB. */
ppg_status ppg_plugin_config(ppg_peer *plugin, const char *json);
/* Level of its log. May be called at any time. */
ppg_status ppg_plugin_log_level(ppg_peer *plugin, ppg_log_level level);
/* Receives each line that the plugin writes to its stderr (and stdout, if that is not the connection), on one thread of
 * the library. The line is valid during the call. Default: this process's standard error. */
ppg_status ppg_plugin_on_line(ppg_peer *plugin, void (*line)(const char *line, void *user), void *user);
/* Longest time for the start, in milliseconds: until it has answered, its start call-back included. Default: 10000. */
ppg_status ppg_plugin_set_start_timeout(ppg_peer *plugin, unsigned milliseconds);
/* Starts it, and waits until it has answered. The error says why a file is not executed (no such file, not
 * executable, a missing interpreter, another machine, …), or how the plugin has ended, with the last lines of its
 * stderr. A file that is open for writing (ETXTBSY) is tried again for up to 200 ms: it was written a moment ago,
 * and a process that another thread has forked meanwhile has it open until that executes its program. After a
 * failure the plugin is only freed. */
ppg_status ppg_plugin_start(ppg_peer *plugin, ppg_error *error);
/* Asks it to end, waits 5 s, closes its pipe, waits 1 s, sends SIGTERM, waits 2 s, sends SIGKILL. exit_status is
 * that of waitpid(2), 0 for a plugin that was attached to. PPG_ECLOSED if it had ended before; the error says how.
 * Afterwards all lines of its stderr have been handed over. */
ppg_status ppg_plugin_stop(ppg_peer *plugin, int *exit_status, ppg_error *error);
/* Sends SIGKILL to its process group. ppg_plugin_stop then returns its status. */
ppg_status ppg_plugin_kill(ppg_peer *plugin);
/* Waits until the connection has ended. PPG_ETIMEOUT if it has not; a negative time is no limit. */
ppg_status ppg_plugin_wait(ppg_peer *plugin, int timeout_ms);
/* Process id; 0 if it does not run, or its end was noticed. */
long ppg_plugin_pid(ppg_peer *plugin);
/* Stops it if it runs, waits for its handlers, and frees it. No other thread may use it any more, and no handler or
 * call-back of it may free it. Calls are freed before. */
void ppg_free(ppg_peer *plugin);

/* ---- The other side, once it is known ----
 * Any thread: after ppg_plugin_start, or from the guest's start call-back on. */

/* Entry of the other side's metadata; NULL if there is none. Valid as long as the peer. */
const char *ppg_metadata(ppg_peer *peer, const char *key);
/* Returns 1 if both sides have the feature, as in "stream". */
int ppg_has(ppg_peer *peer, const char *feature);
/* Version of the interface in use; 0 if none was negotiated. */
uint32_t ppg_interface_version(ppg_peer *peer);

/* ---- Calls ----
 * Any thread, several at once for a peer; one at a time for each ppg_pending, but ppg_cancel: any.
 *
 * PPG_ECLOSED and PPG_EBROKEN: the error says how the other side has ended: of a plugin its path, its exit status or the
 * signal that killed it, and the last lines of its stderr. For that it waits up to 0.5 s after the end of the connection.
 * PPG_ETIMEOUT: the deadline has passed. What the other side answers after it is dropped, even if it came before the call
 * was looked at; the other side is told that the request was given up. */

/* Options of a call. Start from PPG_CALL_OPTIONS_INIT, so that later versions can add fields. */
typedef struct {
    int timeout_ms;         /* deadline, which the other side learns too; negative for none */
    int one_way;            /* 1: no reply comes. For one-ways with a stream; ppg_notify does the others */
    int send_parts;         /* 1: parts follow */
    int receive_parts;      /* 1: parts of the reply are taken */
    const char *const *values; /* names and values in turn, ends with NULL, such as "traceparent", "00-…"; or NULL */
    ppg_request *parent;    /* request that this call is made for: its deadline and values go along; or NULL */
    /* Reports of progress, called on a thread that reads: it should be short, and must not call back. */
    void (*on_progress)(uint64_t done, uint64_t total, const char *message, void *user);
    void *user;
} ppg_call_options;
#define PPG_CALL_OPTIONS_INIT {-1, 0, 0, 0, NULL, NULL, NULL, NULL}

/* Calls, and waits for the reply, which ppg_reply_free frees. With PPG_EPEER there is a reply, too: the error.
 * reply may be NULL. */
ppg_status ppg_call(ppg_peer *peer, const char *command, const void *data, size_t len,
                    const ppg_call_options *options, ppg_reply **reply, ppg_error *error);
/* Sends a one-way. */
ppg_status ppg_notify(ppg_peer *peer, const char *command, const void *data, size_t len, ppg_error *error);
/* Sends a request. The call has to be freed with ppg_pending_free. */
ppg_status ppg_begin(ppg_peer *peer, const char *command, const void *data, size_t len,
                     const ppg_call_options *options, ppg_pending **pending, ppg_error *error);
/* Waits for the reply, as ppg_call; a negative time is no limit but that of the call. After PPG_ETIMEOUT of this
 * time the call is still open. */
ppg_status ppg_wait(ppg_pending *pending, int timeout_ms, ppg_reply **reply, ppg_error *error);
/* Gives the call up: the other side is told, and ppg_wait returns PPG_ECANCELLED. */
void ppg_cancel(ppg_pending *pending);
/* Parts of the call; NULL without. Valid as long as the call. */
ppg_stream *ppg_pending_stream(ppg_pending *pending);
/* Frees the call, and gives it up if it is open. NULL is allowed. */
void ppg_pending_free(ppg_pending *pending);

/* Bytes of the reply, followed by a NUL that does not count; of an error its message. Any thread, as long as none
 * frees it. All that the following functions return is valid as long as the reply. NULL is allowed, and is an empty
 * reply. */
const void *ppg_reply_data(const ppg_reply *reply);
const char *ppg_reply_text(const ppg_reply *reply);
size_t ppg_reply_len(const ppg_reply *reply);
/* Code of an error, as in "unknown_command"; "" for none. */
const char *ppg_reply_code(const ppg_reply *reply);
/* Data of an error, as JSON; "" for none. */
const char *ppg_reply_error_data(const ppg_reply *reply);
/* NULL is allowed. */
void ppg_reply_free(ppg_reply *reply);

/* ---- Requests, in a handler ----
 * The thread of the handler; of a request that was kept any thread, one at a time. ppg_request_cancelled and
 * ppg_progress: any. What is returned is valid as long as the request.
 *
 * A request that the caller gives up, or whose deadline passes, goes on: its handler finds out by ppg_request_cancelled
 * or ppg_request_wait_cancelled, and its parts end with PPG_ECANCELLED or PPG_ETIMEOUT. It should stop soon, and answer as
 * always (ppg_fail will do): the caller drops the answer. If the handler had not begun, it is not called. */

ppg_peer *ppg_request_peer(ppg_request *request);
const char *ppg_request_command(const ppg_request *request);
/* Bytes of the request, followed by a NUL that does not count. */
const void *ppg_request_data(const ppg_request *request);
size_t ppg_request_len(const ppg_request *request);
/* The same if it is text: UTF-8 without NUL. NULL if it is not. */
const char *ppg_request_text(const ppg_request *request);
int ppg_request_is_one_way(const ppg_request *request);
/* Value that the caller has supplied, such as "traceparent"; NULL for none. */
const char *ppg_request_value(const ppg_request *request, const char *name);
/* Milliseconds until the deadline; negative for none. */
int ppg_request_time_left(const ppg_request *request);
/* Returns 1 once the caller has given the request up, its deadline has passed, or the connection has ended. */
int ppg_request_cancelled(ppg_request *request);
/* Waits for that, at most for the time. For handlers that would sleep. Also returns, with 2, when the plugin is to
 * stop. */
int ppg_request_wait_cancelled(ppg_request *request, int timeout_ms);
/* Reports progress. total 0 and message NULL are none. Costs nothing if the caller does not ask. */
void ppg_progress(ppg_request *request, uint64_t done, uint64_t total, const char *message);
/* Keeps the request beyond its handler. It has to be answered, by any thread. */
void ppg_request_keep(ppg_request *request);
/* Answers. Frees the request if it was kept; otherwise its data stay until the handler returns. */
ppg_status ppg_answer(ppg_request *request, const void *data, size_t len);
/* Answers with an error. code may be NULL or ""; data is JSON or NULL. PPG_EINVAL, and a warning, for a code that
 * has spaces or control characters, is no UTF-8 or longer than 256 bytes, and for data that are no JSON: the request is
 * answered then, too, with the message and without what is wrong. */
ppg_status ppg_fail(ppg_request *request, const char *code, const char *message, const char *data);
/* Answers with the error unknown_command. */
ppg_status ppg_unknown(ppg_request *request);

/* ---- Streams ----
 * One thread that sends and one that receives. */

/* Parts of the request, in both directions; NULL without. Valid until it is answered, of a one-way until the handler
 * returns. */
ppg_stream *ppg_request_stream(ppg_request *request);
/* Sends a part. Waits while the receiver does not take them, at most until the deadline of the call or request. */
ppg_status ppg_send_part(ppg_stream *stream, const void *data, size_t len, ppg_error *error);
/* Completes the parts of a call. The parts of a reply are completed by the answer. */
ppg_status ppg_end_parts(ppg_stream *stream, ppg_error *error);
/* Ends the parts of a call early, with a reason. */
ppg_status ppg_abort_parts(ppg_stream *stream, const char *reason);
/* Next part: PPG_OK, or PPG_END after the last one. The bytes, followed by a NUL, stay until the next call. After the
 * deadline of the call or request: the parts that have come, and then PPG_ETIMEOUT. */
ppg_status ppg_next_part(ppg_stream *stream, const void **data, size_t *len, ppg_error *error);
/* Tells the sender that no more parts are wanted. */
ppg_status ppg_enough(ppg_stream *stream, const char *reason);

/* ---- JSON, as far as services and failures need it ----
 * Any thread. */

/* Finds the value of a key in a JSON object: a pointer into json and its length. Returns 0 if json is no object or has
 * no such key. */
int ppg_json_get(const char *json, size_t len, const char *key, const char **value, size_t *value_len);
/* Returns 1 if the text is one JSON object, and nothing else. */
int ppg_json_is_object(const char *json, size_t len);
/* Decodes a JSON string into a new C string, which free(3) frees. NULL if the value is no string, has a NUL, or
 * there is no memory. */
char *ppg_json_text(const char *value, size_t value_len);
/* Encodes a C string as a new JSON string, with its quotes, which free(3) frees. NULL if there is no memory. */
char *ppg_json_quote(const char *text);

#ifdef __cplusplus
}
#endif
#endif
