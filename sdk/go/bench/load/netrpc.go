package load

import "net/rpc"

// NetRPC is a peer that calls by net/rpc.
func NetRPC(name string, client *rpc.Client, method string) Peer {
	return Peer{
		Name: name,
		Call: func(data []byte) error {
			var reply []byte
			return client.Call(method, data, &reply)
		},
		Pipeline: func(window, n int, data []byte) error {
			done := make(chan *rpc.Call, window)
			replies := make([][]byte, window)
			open := 0
			for i := 0; i < n; i++ {
				if open == window {
					if call := <-done; call.Error != nil {
						return call.Error
					}
					open--
				}
				client.Go(method, data, &replies[i%window], done)
				open++
			}
			for ; open > 0; open-- {
				if call := <-done; call.Error != nil {
					return call.Error
				}
			}
			return nil
		},
	}
}
