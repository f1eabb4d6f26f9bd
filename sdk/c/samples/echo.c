/* The smallest plugin: `echo` says back what it is told, `upper` says it louder, `log` goes to standard error. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "pipeplug.h"

static void echo(ppg_request *request, void *user) {
    (void)user;
    ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
}

static void upper(ppg_request *request, void *user) {
    const char *text = ppg_request_text(request);
    size_t len = ppg_request_len(request), i;
    char *louder = malloc(len + 1);
    (void)user;
    if (text == NULL || louder == NULL) {
        ppg_fail(request, NULL, text == NULL ? "upper takes text" : "no memory", NULL);
    } else {
        for (i = 0; i < len; i++) louder[i] = (char)toupper((unsigned char)text[i]);
        ppg_answer(request, louder, len);
    }
    free(louder);
}

static void log_line(ppg_request *request, void *user) {
    const char *text = ppg_request_text(request);
    (void)user;
    fprintf(stderr, "%s\n", text != NULL ? text : "(not text)");
    ppg_answer(request, NULL, 0);
}

int main(int argc, char **argv) {
    ppg_peer *host = ppg_guest_new(NULL);
    ppg_set_metadata(host, "Description", "says back what it is told");
    ppg_on(host, "echo", echo, NULL);
    ppg_on(host, "upper", upper, NULL);
    ppg_on(host, "log", log_line, NULL);
    return ppg_guest_run(host, argc, argv);
}
