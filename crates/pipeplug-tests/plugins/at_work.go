// A plugin on standard input and output that does what programs in Go do: `work` answers with the names of the parts
// that went well, or says which one did not.
package main

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	oneWay   = 1
	request  = 2
	response = 3
)

type part struct {
	name string
	run  func() error
}

var parts = []part{{"threads", threads}, {"programs", programs}, {"files", files}, {"waiting", waiting}, {"tls", secrets}}

func threads() error {
	var all sync.WaitGroup
	for n := 0; n < 16; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			time.Sleep(time.Millisecond)
			_ = make([]byte, 1<<20)
		}()
	}
	all.Wait()
	runtime.GC()
	return nil
}

func programs() error {
	out, err := exec.Command("/bin/echo", "hi").Output()
	if err != nil || string(out) != "hi\n" {
		return fmt.Errorf("echo: %q %v", out, err)
	}
	sleeper := exec.Command("/bin/sleep", "100")
	if err := sleeper.Start(); err != nil {
		return err
	}
	if err := sleeper.Process.Kill(); err != nil {
		return err
	}
	_ = sleeper.Wait()
	return nil
}

func files() error {
	dir, err := os.MkdirTemp("", "at-work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, 8192), 0o644); err != nil {
		return err
	}
	if err := os.Rename(path, path+"2"); err != nil {
		return err
	}
	source, err := os.Open(path + "2")
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(path)
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = io.Copy(target, source)
	return err
}

func waiting() error {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		return err
	}
	select {
	case <-caught:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("no signal")
	}
}

func secrets() error {
	_ = &tls.Config{MinVersion: tls.VersionTLS13}
	_, err := rand.Read(make([]byte, 16))
	return err
}

func answer(cmd string) (string, string) {
	switch cmd {
	case "GetMetadata":
		return cmd, `{"Cmd":"at-work"}`
	case "cmd.ping":
		return cmd, ""
	case "work":
		var names []string
		for _, part := range parts {
			if err := part.run(); err != nil {
				return "cmd.error", part.name + ": " + err.Error()
			}
			names = append(names, part.name)
		}
		return cmd, strings.Join(names, " ")
	}
	return "cmd.error", "there is only work"
}

func main() {
	input := bufio.NewReader(os.Stdin)
	number := func() int {
		text, err := input.ReadString(0)
		if err != nil {
			os.Exit(1)
		}
		number, _ := strconv.Atoi(strings.TrimSuffix(text, "\x00"))
		return number
	}
	bytes := func(count int) string {
		buffer := make([]byte, count)
		if _, err := io.ReadFull(input, buffer); err != nil {
			os.Exit(1)
		}
		return string(buffer)
	}
	for {
		id, direction := number(), number()
		cmd := bytes(number())
		bytes(1)
		bytes(number())
		if direction == oneWay && cmd == "cmd.stop" {
			return
		}
		if direction == request {
			cmd, buffer := answer(cmd)
			fmt.Printf("%d\x00%d\x00%d\x00%s\x00%d\x00%s", id, response, len(cmd), cmd, len(buffer), buffer)
		}
	}
}
