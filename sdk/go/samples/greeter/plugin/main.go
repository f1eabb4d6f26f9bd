// Command plugin greets in a few languages.
package main

import (
	"context"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
	"github.com/pipeplug/pipeplug/sdk/go/samples/greeter"
)

var greetings = map[string]string{"de": "guten Tag", "en": "hello", "fr": "bonjour"}

// greetingsIn has the methods of the service.
type greetingsIn struct{}

func (greetingsIn) Greet(_ context.Context, args greeter.GreetArguments) (string, error) {
	greeting, ok := greetings[args.Language]
	if !ok {
		return "", &greeter.GreetError{UnknownLanguage: &greeter.UnknownLanguage{Language: args.Language}}
	}
	return greeting + ", " + args.Name, nil
}

func (greetingsIn) Languages(context.Context) ([]string, error) {
	return []string{"de", "en", "fr"}, nil
}

func main() {
	service := pipeplug.NewService(greeter.Name, greeter.Version).Docs("Greets people.").Register(greetingsIn{})
	service.Lookup("greet").Docs("Greets a person, in one of the plugin's languages.").Fails(&greeter.GreetError{})
	service.Lookup("languages").Docs("Codes of the languages.")
	guest := pipeplug.Guest{Services: []*pipeplug.Service{service}}
	guest.Main()
}
