/* The pipeplug protocol for a plugin, in both formats, with POSIX alone.
 *
 * Calls to the host and streams are not here: docs/protocol.md of pipeplug has the whole protocol. */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <stddef.h>

/* A reply that a handler fills in. It is empty at first. */
struct reply;

/* Appends bytes to the reply. */
void reply_bytes(struct reply *reply, const void *bytes, size_t length);

/* Makes the reply an error with this text. */
void reply_error(struct reply *reply, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Answers a request. Several threads call it at once. A NUL follows the data, and does not count. */
typedef void answer_function(const char *command, const char *data, size_t length, struct reply *reply);

/* Answers requests until the host stops the plugin. `metadata` is a JSON object of strings. Returns the exit status. */
int serve(int argc, char **argv, answer_function *answer, const char *metadata);

#endif
