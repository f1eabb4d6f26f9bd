package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGreets(t *testing.T) {
	if reply, err := answer("hello", []byte("world")); err != nil || string(reply) != "hello, world" {
		t.Fatalf("%q, %v", reply, err)
	}
}

func TestOtherCommandsAreErrors(t *testing.T) {
	if _, err := answer("nonsense", nil); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Fatal(err)
	}
}

func TestSpeaksTheProtocol(t *testing.T) {
	program := filepath.Join(t.TempDir(), "plugin")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		t.Fatal(err)
	}
	// The request 1 and a stop, in the standard format: threadID, direction, len(cmd), cmd, len(buffer), buffer.
	plugin := exec.Command(program)
	plugin.Stdin = strings.NewReader("1\x002\x005\x00hello\x005\x00world" + "0\x001\x008\x00cmd.stop\x000\x00")
	output, err := plugin.Output()
	if err != nil || string(output) != "1\x003\x005\x00hello\x0012\x00hello, world" {
		t.Fatalf("%q, %v", output, err)
	}
}
