#!/usr/bin/env node
// The plugin: greets in a few languages.
import { MethodError, register, service } from "pipeplug";
import { greeter } from "./greeter.mjs";

const greetings = { de: "guten Tag", en: "hello", fr: "bonjour" };

register({
  services: [
    service(greeter, {
      greet({ name, language }) {
        if (Object.hasOwn(greetings, language)) return `${greetings[language]}, ${name}`;
        throw new MethodError(`no greeting in the language ${JSON.stringify(language)} is known`, {
          UnknownLanguage: { language },
        });
      },
      languages: () => Object.keys(greetings),
    }),
  ],
});
