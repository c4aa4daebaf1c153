// A stock SPIFFE peer: an HTTP client and server on go-spiffe, with SVIDs from files.
// It knows nothing of Tacit.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const usage = "usage: peer client|server|h2server ADDRESS CHAIN KEY BUNDLE PEER_ID"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 6 {
		return fmt.Errorf(usage)
	}
	verb, address := arguments[0], arguments[1]
	svid, err := x509svid.Load(arguments[2], arguments[3])
	if err != nil {
		return err
	}
	peer, err := spiffeid.FromString(arguments[5])
	if err != nil {
		return err
	}
	bundle, err := x509bundle.Load(peer.TrustDomain(), arguments[4])
	if err != nil {
		return err
	}
	authorize := tlsconfig.AuthorizeID(peer)
	switch verb {
	case "client":
		return client(address, tlsconfig.MTLSClientConfig(svid, bundle, authorize))
	case "server":
		return serve(address, tlsconfig.MTLSServerConfig(svid, bundle, authorize), false)
	case "h2server":
		return serve(address, tlsconfig.MTLSServerConfig(svid, bundle, authorize), true)
	}
	return fmt.Errorf(usage)
}

func client(address string, config *tls.Config) error {
	http.DefaultTransport.(*http.Transport).TLSClientConfig = config
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", "https://"+address+"/", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	fmt.Printf("%s %s", response.Status, body)
	return nil
}

func serve(address string, config *tls.Config, h2 bool) error {
	handler := func(writer http.ResponseWriter, request *http.Request) {
		ids := []string{}
		for _, uri := range request.TLS.PeerCertificates[0].URIs {
			ids = append(ids, uri.String())
		}
		fmt.Fprintf(writer, "%s from %v at %s\n", request.Proto, ids, request.RemoteAddr)
	}
	server := &http.Server{Handler: http.HandlerFunc(handler), TLSConfig: config}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if h2 {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(tls.NewListener(listener, config))
}
