// Command host has its plugin greet in each of its languages.
//
//	host PLUGIN NAME
package main

import (
	"context"
	"fmt"
	"os"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
	"github.com/pipeplug/pipeplug/sdk/go/samples/greeter"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: host PLUGIN NAME")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path, name string) error {
	plugin, err := pipeplug.Start(ctx, path)
	if err != nil {
		return err
	}
	defer plugin.Kill()
	client, err := pipeplug.NewClient(plugin.Conn, greeter.Name, greeter.Version)
	if err != nil {
		return err
	}
	languages, err := pipeplug.Invoke[[]string](ctx, client, "languages", nil)
	if err != nil {
		return err
	}
	for _, language := range languages {
		greeting, err := pipeplug.Invoke[string](ctx, client, "greet", greeter.GreetArguments{Name: name, Language: language})
		if err != nil {
			return err
		}
		fmt.Println(greeting)
	}
	// The plugin's own errors have their type here.
	_, err = pipeplug.Invoke[string](ctx, client, "greet", greeter.GreetArguments{Name: name, Language: "tlh"})
	own, ok := pipeplug.MethodError[greeter.GreetError](err)
	if !ok || own.UnknownLanguage == nil {
		return fmt.Errorf("an unknown language brought %v", err)
	}
	fmt.Println("not in", own.UnknownLanguage.Language)
	return plugin.Stop(ctx)
}
