package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/rpc"
	"os"
	"strconv"
	"time"

	"echopb"
	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// handler is the work of the plugin: none, or a busy CPU.
type handler struct{ busy time.Duration }

func handlerFromEnv() (handler, error) {
	text, ok := os.LookupEnv("BENCH_HANDLER_US")
	if !ok {
		return handler{}, nil
	}
	micros, err := strconv.Atoi(text)
	if err != nil {
		return handler{}, fmt.Errorf("BENCH_HANDLER_US is no number: %w", err)
	}
	return handler{time.Duration(micros) * time.Microsecond}, nil
}

func (h handler) run() {
	if h.busy == 0 {
		return
	}
	for start := time.Now(); time.Since(start) < h.busy; {
	}
}

func serve(mode string, h handler) {
	config := &plugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         map[string]plugin.Plugin{name: netRPCPlugin{h}},
		Logger:          hclog.NewNullLogger(),
	}
	if mode == "grpc" {
		config.Plugins = map[string]plugin.Plugin{name: grpcPlugin{handler: h}}
		config.GRPCServer = func(options []grpc.ServerOption) *grpc.Server {
			// The default refuses messages over 4 MiB.
			return grpc.NewServer(append(options, grpc.MaxRecvMsgSize(math.MaxInt32))...)
		}
	}
	plugin.Serve(config)
}

// netRPCPlugin is both sides over net/rpc.
type netRPCPlugin struct{ handler }

func (p netRPCPlugin) Server(*plugin.MuxBroker) (interface{}, error) {
	return &netRPCEcho{p.handler}, nil
}

func (netRPCPlugin) Client(_ *plugin.MuxBroker, client *rpc.Client) (interface{}, error) {
	return client, nil
}

type netRPCEcho struct{ handler handler }

// Call is what the host calls as Plugin.Call.
func (e *netRPCEcho) Call(chunk []byte, reply *[]byte) error {
	e.handler.run()
	*reply = chunk
	return nil
}

// grpcPlugin is both sides over gRPC.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	handler
}

func (p grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	service := grpcEcho{p.handler}
	echopb.RegisterEchoServer(server, service)
	echopb.RegisterStreamsServer(server, service)
	return nil
}

func (grpcPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (interface{}, error) {
	return conn, nil
}

type grpcEcho struct{ handler handler }

func (e grpcEcho) Call(_ context.Context, chunk *echopb.Chunk) (*echopb.Chunk, error) {
	e.handler.run()
	return chunk, nil
}

func (e grpcEcho) Stream(stream echopb.Streams_StreamServer) error {
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		e.handler.run()
		if err := stream.Send(chunk); err != nil {
			return err
		}
	}
}

func (e grpcEcho) OneWays(stream echopb.Streams_OneWaysServer) error {
	for count := uint64(0); ; count++ {
		_, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&echopb.Count{Chunks: count})
		}
		if err != nil {
			return err
		}
		e.handler.run()
	}
}
