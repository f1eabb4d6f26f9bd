// Package load is what every peer of the benchmark is measured with.
package load

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is a host with its plugin, which echoes.
type Peer struct {
	Name string
	Call func(data []byte) error
	// Pipeline makes n calls with at most window of them in flight, from one goroutine. Nil if the
	// peer has no such calls.
	Pipeline func(window, n int, data []byte) error
}

// Result is one figure.
type Result struct {
	Peer    string  `json:"peer"`
	Subject string  `json:"subject"`
	Rate    float64 `json:"rate"`   // calls a second
	Median  float64 `json:"median"` // µs
}

// Subjects are the names of the loads, in order.
var Subjects = []string{"sequential", "64 concurrent", "pipelined", "1 MiB"}

// only is the subject that Run measures; all of them if it is empty.
var only = os.Getenv("BENCH_SUBJECT")

// Run measures each subject for a while, and writes a line of JSON for each.
func Run(peer Peer, duration time.Duration) error {
	small, large := make([]byte, 64), make([]byte, 1<<20)
	for _, subject := range Subjects {
		if only != "" && only != subject {
			continue
		}
		result := Result{Peer: peer.Name, Subject: subject}
		var err error
		switch subject {
		case "sequential":
			result.Rate, result.Median, err = callers(1, small, duration, peer.Call)
		case "64 concurrent":
			result.Rate, result.Median, err = callers(64, small, duration, peer.Call)
		case "1 MiB":
			result.Rate, result.Median, err = callers(1, large, duration, peer.Call)
		case "pipelined":
			if peer.Pipeline == nil {
				continue
			}
			result.Rate, err = pipelined(small, duration, peer.Pipeline)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", peer.Name, subject, err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
			return err
		}
	}
	return nil
}

func callers(n int, data []byte, duration time.Duration, call func([]byte) error) (rate, median float64, err error) {
	for i := 0; i < 200; i++ { // warm up
		if err := call(data); err != nil {
			return 0, 0, err
		}
		if len(data) > 1000 && i > 10 {
			break
		}
	}
	var group sync.WaitGroup
	var total atomic.Int64
	failed := make(chan error, n)
	times := make([][]time.Duration, n)
	began := time.Now()
	for i := 0; i < n; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			last := time.Now()
			for last.Sub(began) < duration {
				if err := call(data); err != nil {
					failed <- err
					return
				}
				now := time.Now()
				times[i] = append(times[i], now.Sub(last))
				last = now
			}
			total.Add(int64(len(times[i])))
		}(i)
	}
	group.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		return 0, 0, err
	default:
	}
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return float64(total.Load()) / took.Seconds(), float64(all[len(all)/2].Nanoseconds()) / 1e3, nil
}

func pipelined(data []byte, duration time.Duration, pipeline func(window, n int, data []byte) error) (rate float64, err error) {
	const window = 1000
	if err := pipeline(window, 5*window, data); err != nil {
		return 0, err
	}
	n := 0
	began := time.Now()
	for time.Since(began) < duration {
		if err := pipeline(window, 20*window, data); err != nil {
			return 0, err
		}
		n += 20 * window
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
