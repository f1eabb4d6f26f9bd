// The service, which plugin and host share: what `pipeplug inspect --schema` says of it.

/** @type {import("pipeplug").ServiceDescription} */
export const greeter = {
  name: "greeter",
  version: 1,
  docs: "Greets people.",
  methods: [
    {
      name: "greet",
      docs: "Greets a person, in one of the plugin's languages.",
      arguments: {
        type: "object",
        properties: {
          name: { type: "string", description: "Name of the person." },
          language: { type: "string", description: "Code of the language, such as `en`.", default: "en" },
        },
        required: ["name"],
      },
      result: { type: "string" },
      error: { $ref: "#/$defs/GreetError" },
    },
    {
      name: "languages",
      docs: "Codes of the languages.",
      result: { type: "array", items: { type: "string" } },
    },
  ],
  $defs: {
    GreetError: {
      description: "Reason that a person is not greeted.",
      oneOf: [
        {
          description: "The plugin does not speak the language.",
          type: "object",
          properties: {
            UnknownLanguage: {
              type: "object",
              properties: { language: { type: "string", description: "Code of the language." } },
              required: ["language"],
            },
          },
          required: ["UnknownLanguage"],
          additionalProperties: false,
        },
      ],
    },
  },
};
