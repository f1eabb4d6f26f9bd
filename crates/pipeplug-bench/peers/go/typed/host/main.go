// The host.
package main

import (
	"os/exec"

	plugin "github.com/hashicorp/go-plugin"

	"../shared"
)

func start(program string) (*plugin.Client, shared.Words, error) {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: shared.Handshake,
		Plugins:         map[string]plugin.Plugin{"words": shared.WordsPlugin{}},
		Cmd:             exec.Command(program),
	})
	protocol, err := client.Client()
	if err != nil {
		return nil, nil, err
	}
	raw, err := protocol.Dispense("words")
	if err != nil {
		return nil, nil, err
	}
	return client, raw.(shared.Words), nil
}
