/* The plugin: greets in a few languages, as the service `greeter`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeplug.h"

/* What `GetServices` tells of the service: docs/protocol.md, "Services". */
static const char DESCRIPTION[] =
    "{\"name\":\"greeter\",\"version\":1,\"oldest\":1,\"docs\":\"Greets people.\",\"methods\":["
    "{\"name\":\"greet\",\"command\":\"greeter.greet\","
    "\"docs\":\"Greets a person, in one of the plugin's languages.\","
    "\"arguments\":{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{"
    "\"name\":{\"type\":\"string\",\"description\":\"Name of the person.\"},"
    "\"language\":{\"type\":\"string\",\"default\":\"en\",\"description\":\"Code of the language, such as `en`.\"}}},"
    "\"result\":{\"type\":\"string\"},\"error\":{\"$ref\":\"#/$defs/GreetError\"}},"
    "{\"name\":\"languages\",\"command\":\"greeter.languages\",\"docs\":\"Codes of the languages.\","
    "\"result\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}}],"
    "\"$defs\":{\"GreetError\":{\"description\":\"Reason that a person is not greeted.\",\"oneOf\":["
    "{\"type\":\"object\",\"description\":\"The plugin does not speak the language.\",\"additionalProperties\":false,"
    "\"required\":[\"UnknownLanguage\"],\"properties\":{\"UnknownLanguage\":{\"type\":\"object\","
    "\"required\":[\"language\"],\"properties\":{\"language\":{\"type\":\"string\","
    "\"description\":\"Code of the language.\"}}}}}]}}}";

static const char *const GREETINGS[][2] = {{"de", "guten Tag"}, {"en", "hello"}, {"fr", "bonjour"}};
enum { LANGUAGES = sizeof GREETINGS / sizeof *GREETINGS };

/* Text that printf makes, in new memory. */
static char *format(const char *with, const char *a, const char *b) {
    size_t size = strlen(with) + strlen(a) + strlen(b) + 1;
    char *text = malloc(size);
    if (text != NULL) snprintf(text, size, with, a, b);
    return text;
}

/* Argument of a request: *text is new, or NULL if the argument is missing. Returns 0 if it has no text. */
static int argument(const ppg_request *request, const char *name, char **text) {
    const char *value;
    size_t len;
    *text = NULL;
    if (!ppg_json_get(ppg_request_data(request), ppg_request_len(request), name, &value, &len)) return 1;
    *text = ppg_json_text(value, len);
    return *text != NULL;
}

static void invalid(ppg_request *request, const char *field) {
    char *message = format("the argument \"%s\" should be a string%s", field, "");
    char *data = format("{\"field\":\"%s\"%s}", field, "");
    ppg_fail(request, "invalid_argument", message, data);
    free(message);
    free(data);
}

/* Returns 1 if the arguments are an object, or there are none; answers otherwise. */
static int has_arguments(ppg_request *request) {
    size_t len = ppg_request_len(request);
    if (len == 0 || ppg_json_is_object(ppg_request_data(request), len)) return 1;
    ppg_fail(request, "invalid_argument", "the arguments should be a JSON object", NULL);
    return 0;
}

static void greet(ppg_request *request, void *user) {
    char *name = NULL, *language = NULL, *greeting = NULL, *json = NULL;
    int i;
    (void)user;
    if (!has_arguments(request)) return;
    if (!argument(request, "name", &name) || name == NULL) {
        invalid(request, "name");
    } else if (!argument(request, "language", &language)) {
        invalid(request, "language");
    } else {
        const char *code = language == NULL ? "en" : language;
        for (i = 0; i < LANGUAGES && strcmp(GREETINGS[i][0], code) != 0; i++) continue;
        if (i < LANGUAGES) {
            greeting = format("%s, %s", GREETINGS[i][1], name);
            json = greeting == NULL ? NULL : ppg_json_quote(greeting);
            if (json != NULL) ppg_answer(request, json, strlen(json));
        } else {
            char *quoted = ppg_json_quote(code);
            greeting = quoted == NULL ? NULL : format("no greeting in the language %s is known%s", quoted, "");
            json = quoted == NULL ? NULL : format("{\"UnknownLanguage\":{\"language\":%s%s}}", quoted, "");
            if (greeting != NULL) ppg_fail(request, "method_error", greeting, json);
            free(quoted);
        }
    }
    free(name);
    free(language);
    free(greeting);
    free(json);
}

static void languages(ppg_request *request, void *user) {
    static const char CODES[] = "[\"de\",\"en\",\"fr\"]";
    (void)user;
    if (has_arguments(request)) ppg_answer(request, CODES, sizeof CODES - 1);
}

int main(int argc, char **argv) {
    ppg_peer *host = ppg_guest_new(NULL);
    ppg_add_service(host, "greeter", 1, 1, DESCRIPTION);
    ppg_on(host, "greeter.greet", greet, NULL);
    ppg_on(host, "greeter.languages", languages, NULL);
    return ppg_guest_run(host, argc, argv);
}
