// Command host has its plugin greet in each of its languages.
//
//	host [--stdio] [--classic] PLUGIN NAME
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
	"github.com/pipeplug/pipeplug/sdk/go/samples/greeter"
)

func main() {
	var host pipeplug.Host
	flag.BoolVar(&host.Stdio, "stdio", false, "talk over standard input and output")
	classic := flag.Bool("classic", false, "talk in the classic format")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: host [--stdio] [--classic] PLUGIN NAME")
		os.Exit(2)
	}
	if *classic {
		host.Format = pipeplug.FormatClassic
	}
	if err := run(context.Background(), &host, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, host *pipeplug.Host, path, name string) error {
	plugin, err := host.Start(ctx, path)
	if err != nil {
		return err
	}
	defer plugin.Kill()
	client, err := greeter.NewGreeterClient(plugin.Conn)
	if err != nil {
		return err
	}
	languages, err := client.Languages(ctx)
	if err != nil {
		return err
	}
	for i := range languages {
		greeting, err := client.Greet(ctx, greeter.GreetArguments{Name: name, Language: &languages[i]})
		if err != nil {
			return err
		}
		fmt.Println(greeting)
	}
	// The plugin's own errors have their type here.
	klingon := "tlh"
	_, err = client.Greet(ctx, greeter.GreetArguments{Name: name, Language: &klingon})
	var own *greeter.GreetError
	if !errors.As(err, &own) || own.UnknownLanguage == nil {
		return fmt.Errorf("an unknown language brought %v", err)
	}
	fmt.Println("not in", own.UnknownLanguage.Language)
	return plugin.Stop(ctx)
}
