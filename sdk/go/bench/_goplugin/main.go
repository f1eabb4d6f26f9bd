// Command goplugin measures hashicorp/go-plugin with both of its transports. It is built by
// bench/run.sh with the packages of Debian.
package main

import (
	"context"
	"fmt"
	"math"
	"net/rpc"
	"os"
	"os/exec"
	"time"

	"github.com/golang/protobuf/ptypes/wrappers"
	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/pipeplug/pipeplug/sdk/go/bench/load"
)

type echo struct{}

func (echo) Echo(data []byte, reply *[]byte) error { *reply = data; return nil }

type overRPC struct{}

func (overRPC) Server(*plugin.MuxBroker) (interface{}, error)                  { return echo{}, nil }
func (overRPC) Client(_ *plugin.MuxBroker, c *rpc.Client) (interface{}, error) { return c, nil }

type overGRPC struct{ plugin.NetRPCUnsupportedPlugin }

func (overGRPC) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "Echo",
		HandlerType: (*interface{})(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(_ interface{}, _ context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
			in := new(wrappers.BytesValue)
			return in, decode(in)
		}}},
	}, echo{})
	return nil
}

func (overGRPC) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (interface{}, error) {
	return c, nil
}

func plugins(mode string) map[string]plugin.Plugin {
	if mode == "grpc" {
		return map[string]plugin.Plugin{"echo": overGRPC{}}
	}
	return map[string]plugin.Plugin{"echo": overRPC{}}
}

func main() {
	handshake := plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "BENCH", MagicCookieValue: "echo"}
	mode, duration := os.Args[1], os.Args[2]
	if duration == "plugin" {
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig: handshake, Plugins: plugins(mode), Logger: hclog.NewNullLogger(),
			GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(o, grpc.MaxRecvMsgSize(math.MaxInt32))...)
			},
		})
		return
	}
	if err := measure(handshake, mode, duration); err != nil {
		fmt.Fprintln(os.Stderr, "goplugin:", err)
		os.Exit(1)
	}
}

func measure(handshake plugin.HandshakeConfig, mode, duration string) error {
	time, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: plugins(mode), Cmd: exec.Command(os.Args[0], mode, "plugin"),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolNetRPC, plugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
	})
	defer client.Kill()
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense("echo")
	if err != nil {
		return err
	}
	if mode != "grpc" {
		return load.Run(load.NetRPC("go-plugin net/rpc", raw.(*rpc.Client), "Plugin.Echo"), time)
	}
	conn := raw.(*grpc.ClientConn)
	return load.Run(load.Peer{Name: "go-plugin gRPC", Call: func(data []byte) error {
		var reply wrappers.BytesValue
		return conn.Invoke(context.Background(), "/Echo/Echo", &wrappers.BytesValue{Value: data}, &reply)
	}}, time)
}
