package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/rpc"
	"os"
	"os/exec"

	"echopb"
	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// peer is a connection to a plugin. What is nil there is not.
type peer struct {
	pid  int
	stop func()
	// call has a chunk echoed.
	call func(chunk []byte) ([]byte, error)
	// flight makes calls from one goroutine, at most window of them in flight.
	flight func(window, calls int, chunk []byte) error
	// stream has chunks echoed over one stream, at most window of them in flight.
	stream func(window, chunks int, chunk []byte) error
	// oneWays sends chunks, and has the plugin confirm that all arrived.
	oneWays func(count int, chunk []byte) error
}

func start(mode string) (*peer, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var kind plugin.Plugin = netRPCPlugin{}
	if mode == "grpc" {
		kind = grpcPlugin{}
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  handshake,
		Plugins:          map[string]plugin.Plugin{name: kind},
		Cmd:              exec.Command(executable, "plugin", mode),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolNetRPC, plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
	})
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	dispensed, err := protocol.Dispense(name)
	if err != nil {
		client.Kill()
		return nil, err
	}
	var p *peer
	switch connection := dispensed.(type) {
	case *rpc.Client:
		p = overNetRPC(connection)
	case *grpc.ClientConn:
		p = overGRPC(connection)
	}
	p.pid = client.ReattachConfig().Pid
	p.stop = client.Kill
	return p, nil
}

func overNetRPC(client *rpc.Client) *peer {
	const method = "Plugin.Call"
	return &peer{
		call: func(chunk []byte) ([]byte, error) {
			var reply []byte
			err := client.Call(method, chunk, &reply)
			return reply, err
		},
		flight: func(window, calls int, chunk []byte) error {
			done := make(chan *rpc.Call, window)
			receive := func() error {
				ended := <-done
				if ended.Error != nil {
					return ended.Error
				}
				return check(chunk, *ended.Reply.(*[]byte))
			}
			for i := 0; i < calls; i++ {
				if i >= window {
					if err := receive(); err != nil {
						return err
					}
				}
				client.Go(method, chunk, new([]byte), done)
			}
			for i := 0; i < window && i < calls; i++ {
				if err := receive(); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func overGRPC(conn *grpc.ClientConn) *peer {
	echo, streams := echopb.NewEchoClient(conn), echopb.NewStreamsClient(conn)
	call := func(chunk []byte) ([]byte, error) {
		reply, err := echo.Call(context.Background(), &echopb.Chunk{Data: chunk}, grpc.MaxCallSendMsgSize(math.MaxInt32))
		if err != nil {
			return nil, err
		}
		return reply.Data, nil
	}
	return &peer{
		call: call,
		flight: func(window, calls int, chunk []byte) error {
			room := make(chan struct{}, window)
			failed := make(chan error, 1)
			for i := 0; i < calls; i++ {
				select {
				case room <- struct{}{}:
				case err := <-failed:
					return err
				}
				go func() {
					reply, err := call(chunk)
					if err == nil {
						err = check(chunk, reply)
					}
					if err != nil {
						select {
						case failed <- err:
						default:
						}
					}
					<-room
				}()
			}
			for i := 0; i < window; i++ {
				select {
				case room <- struct{}{}:
				case err := <-failed:
					return err
				}
			}
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		},
		stream: func(window, chunks int, chunk []byte) error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stream, err := streams.Stream(ctx)
			if err != nil {
				return err
			}
			room := make(chan struct{}, window)
			go func() {
				for i := 0; i < chunks; i++ {
					select {
					case room <- struct{}{}:
					case <-ctx.Done():
						return
					}
					// The receiver is told why it fails.
					if stream.Send(&echopb.Chunk{Data: chunk}) != nil {
						return
					}
				}
				stream.CloseSend()
			}()
			for i := 0; i < chunks; i++ {
				reply, err := stream.Recv()
				if err != nil {
					return err
				}
				if err := check(chunk, reply.Data); err != nil {
					return err
				}
				<-room
			}
			if _, err := stream.Recv(); err != io.EOF {
				return fmt.Errorf("more came back than %d chunks: %w", chunks, err)
			}
			return nil
		},
		oneWays: func(count int, chunk []byte) error {
			stream, err := streams.OneWays(context.Background())
			if err != nil {
				return err
			}
			for i := 0; i < count; i++ {
				if err := stream.Send(&echopb.Chunk{Data: chunk}); err != nil && err != io.EOF {
					return err
				} else if err == io.EOF {
					break // why, CloseAndRecv says
				}
			}
			arrived, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			if arrived.Chunks != uint64(count) {
				return fmt.Errorf("%d chunks were sent, but %d arrived", count, arrived.Chunks)
			}
			return nil
		},
	}
}
