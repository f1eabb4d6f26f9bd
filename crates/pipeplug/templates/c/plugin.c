/* The plugin {{name}}. */

#include "protocol.h"

#include <string.h>

static const char metadata[] = "{\"Cmd\": \"hello\","
                               " \"Description\": \"greets whom it is told\","
                               " \"pipeplug.name\": \"{{name}}\","
                               " \"pipeplug.version\": \"0.1.0\"}";

/* Answers a request. Several threads call it at once. */
static void answer(const char *command, const char *data, size_t length, struct reply *reply) {
    if (strcmp(command, "hello") == 0) {
        reply_bytes(reply, "hello, ", 7);
        reply_bytes(reply, data, length);
    } else {
        reply_error(reply, "unknown command \"%s\", there is only hello", command);
    }
}

int main(int argc, char **argv) {
    return serve(argc, argv, answer, metadata);
}
