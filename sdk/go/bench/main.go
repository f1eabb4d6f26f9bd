// Command bench measures this library beside what users of Go have today: net/rpc over pipes and
// hashicorp/go-plugin. bench/run.sh builds and runs all of it.
//
//	bench -peer pipeplug|net/rpc [-duration 1s]     writes a line of JSON for each subject
//	bench -report FILE                              writes the medians of such lines as a table
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"runtime/pprof"
	"sort"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
	"github.com/pipeplug/pipeplug/sdk/go/bench/load"
)

func main() {
	peer := flag.String("peer", "pipeplug", "the peer to measure")
	duration := flag.Duration("duration", time.Second, "time of each subject")
	report := flag.String("report", "", "file with lines of results")
	profile := flag.String("profile", "", "file for a profile of the host's CPU time")
	guest := os.Getenv("PIPEPLUG_BENCH_GUEST")
	if guest != "" {
		serve(guest)
		return
	}
	flag.Parse()
	err := error(nil)
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			_ = pprof.StartCPUProfile(file)
			defer pprof.StopCPUProfile()
		}
	}
	switch {
	case *report != "":
		err = table(*report)
	case *peer == "pipeplug":
		err = ours(*duration)
	case *peer == "net/rpc":
		err = netRPC(*duration)
	default:
		err = fmt.Errorf("there is no peer %q", *peer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Echo is the service of net/rpc.
type Echo struct{}

// Echo gives data back.
func (Echo) Echo(data []byte, reply *[]byte) error {
	*reply = data
	return nil
}

type pipes struct {
	io.Reader
	io.WriteCloser
}

func serve(peer string) {
	if file := os.Getenv("PIPEPLUG_BENCH_PROFILE"); file != "" {
		if f, err := os.Create(file); err == nil {
			_ = pprof.StartCPUProfile(f)
			time.AfterFunc(3*time.Second, pprof.StopCPUProfile)
		}
	}
	if peer == "net/rpc" {
		server := rpc.NewServer()
		if err := server.Register(Echo{}); err != nil {
			panic(err)
		}
		server.ServeConn(pipes{os.Stdin, os.Stdout})
		return
	}
	mux := pipeplug.NewMux()
	mux.HandleFunc("echo", func(_ context.Context, req *pipeplug.Request) ([]byte, error) { return req.Data, nil })
	pipeplug.Main(mux)
}

func ours(duration time.Duration) error {
	ctx := context.Background()
	host := pipeplug.Host{Env: append(os.Environ(), "PIPEPLUG_BENCH_GUEST=pipeplug")}
	plugin, err := host.Start(ctx, os.Args[0])
	if err != nil {
		return err
	}
	defer plugin.Kill()
	err = load.Run(load.Peer{
		Name: "pipeplug",
		Call: func(data []byte) error {
			_, err := plugin.Call(ctx, "echo", data)
			return err
		},
		Pipeline: func(window, n int, data []byte) error {
			calls := make([]*pipeplug.Pending, window)
			for i := 0; i < n+window; i++ {
				if call := calls[i%window]; call != nil {
					if _, err := call.Wait(); err != nil {
						return err
					}
					calls[i%window] = nil
				}
				if i < n {
					var err error
					if calls[i%window], err = plugin.Go(ctx, "echo", data); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}, duration)
	if err != nil {
		return err
	}
	return plugin.Stop(ctx)
}

func netRPC(duration time.Duration) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIPEPLUG_BENCH_GUEST=net/rpc")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	client := rpc.NewClient(pipes{out, in})
	err = load.Run(load.NetRPC("net/rpc", client, "Echo.Echo"), duration)
	_ = client.Close()
	_ = cmd.Wait()
	return err
}

// table writes the medians, and the ratios to this library.
func table(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	rates, medians := map[[2]string][]float64{}, map[[2]string][]float64{}
	var peers []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r load.Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return err
		}
		key := [2]string{r.Peer, r.Subject}
		rates[key] = append(rates[key], r.Rate)
		medians[key] = append(medians[key], r.Median)
		known := false
		for _, p := range peers {
			known = known || p == r.Peer
		}
		if !known {
			peers = append(peers, r.Peer)
		}
	}
	median := func(values []float64) float64 {
		if len(values) == 0 {
			return 0
		}
		sort.Float64s(values)
		return values[len(values)/2]
	}
	fmt.Println("| calls a second (median latency) | " + peers[0] + " | others: rate, and pipeplug's as a multiple |")
	fmt.Println("| --- | --- | --- |")
	for _, subject := range load.Subjects {
		own := median(rates[[2]string{peers[0], subject}])
		if own == 0 {
			continue // it was not measured
		}
		show := func(peer string) string {
			key := [2]string{peer, subject}
			text := fmt.Sprintf("%.0f", median(rates[key]))
			if m := median(medians[key]); m > 0 {
				text += fmt.Sprintf(" (%.1f µs)", m)
			}
			return text
		}
		line := fmt.Sprintf("| %s | %s |", subject, show(peers[0]))
		for _, peer := range peers[1:] {
			if r := median(rates[[2]string{peer, subject}]); r > 0 {
				line += fmt.Sprintf(" %s %s: %.1f×;", peer, show(peer), own/r)
			}
		}
		fmt.Println(line + " |")
	}
	return nil
}
