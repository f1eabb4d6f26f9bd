// Command plugin greets in a few languages.
package main

import (
	"context"
	"fmt"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
	"github.com/pipeplug/pipeplug/sdk/go/samples/greeter"
)

var greetings = map[string]string{"de": "guten Tag", "en": "hello", "fr": "bonjour"}

// greetingsIn has the methods of the service.
type greetingsIn struct{}

func (greetingsIn) Greet(_ context.Context, args greeter.GreetArguments) (string, error) {
	greeting, ok := greetings[*args.Language]
	if !ok {
		return "", &greeter.GreetError{
			UnknownLanguage: &greeter.GreetErrorUnknownLanguage{Language: *args.Language},
			Message:         fmt.Sprintf("no greeting in the language %q is known", *args.Language),
		}
	}
	return greeting + ", " + args.Name, nil
}

func (greetingsIn) Languages(context.Context) ([]string, error) {
	return []string{"de", "en", "fr"}, nil
}

func main() {
	guest := pipeplug.Guest{Services: []*pipeplug.Service{greeter.NewGreeterService(greetingsIn{})}}
	guest.Main()
}
