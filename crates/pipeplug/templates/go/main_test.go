package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

func start(t *testing.T) (context.Context, *pipeplug.Plugin) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "plugin")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	plugin, err := pipeplug.Start(ctx, program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plugin.Stop(context.Background()) })
	return ctx, plugin
}

func TestGreets(t *testing.T) {
	ctx, plugin := start(t)
	reply, err := plugin.Call(ctx, "hello", []byte("world"))
	if err != nil || string(reply) != "hello, world" {
		t.Fatalf("%q, %v", reply, err)
	}
}

func TestOtherCommandsAreErrors(t *testing.T) {
	ctx, plugin := start(t)
	_, err := plugin.Call(ctx, "nonsense", nil)
	if !errors.Is(err, pipeplug.ErrUnknownCommand) {
		t.Fatal(err)
	}
}
