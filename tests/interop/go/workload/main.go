// A program that knows SPIFFE: go-spiffe against a Workload API. It knows nothing of Tacit.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

const usage = "usage: workload x509|jwt SOCKET AUDIENCE | watch|watch-bundles|watch-jwt SOCKET SECONDS | client|server SOCKET ADDRESS PEER"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Printf("error code=%s %v\n", status.Code(err), err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 3 {
		return errors.New(usage)
	}
	verb, socket, rest := arguments[0], "unix://"+arguments[1], arguments[2:]
	limit := 20 * time.Second
	if strings.HasPrefix(verb, "watch") {
		seconds, err := time.ParseDuration(rest[0] + "s")
		if err != nil {
			return err
		}
		limit = seconds
	}
	if verb == "server" {
		limit = time.Hour
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if verb == "client" || verb == "server" {
		return mutual(ctx, verb, socket, rest[0], spiffeid.RequireFromString(rest[1]))
	}
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(socket))
	if err != nil {
		return err
	}
	defer client.Close()
	switch verb {
	case "x509":
		return x509(ctx, client)
	case "jwt":
		return jwt(ctx, client, rest[0])
	case "watch":
		return ended(client.WatchX509Context(ctx, watcher{}))
	case "watch-bundles":
		return ended(client.WatchX509Bundles(ctx, watcher{}))
	case "watch-jwt":
		return ended(client.WatchJWTBundles(ctx, watcher{}))
	}
	return errors.New(usage)
}

// x509 asks for everything about X.509, verifies each SVID against its bundle, and shows it.
func x509(ctx context.Context, client *workloadapi.Client) error {
	found, err := client.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("default=%s\n", found.DefaultSVID().ID)
	for _, svid := range found.SVIDs {
		raw, _, err := svid.MarshalRaw()
		if err != nil {
			return err
		}
		id, _, err := x509svid.ParseAndVerify([][]byte{raw[:len(svid.Certificates[0].Raw)], svid.Certificates[1].Raw}, found.Bundles)
		if err != nil {
			return err
		}
		fmt.Printf("svid id=%s hint=%q dns=%v chain=%d\n", id, svid.Hint, svid.Certificates[0].DNSNames, len(svid.Certificates))
	}
	one, err := client.FetchX509SVID(ctx)
	if err != nil {
		return err
	}
	all, err := client.FetchX509SVIDs(ctx)
	if err != nil {
		return err
	}
	bundles, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("one=%s all=%d bundles=%s\n", one.ID, len(all), domains(bundles))
	return nil
}

// jwt asks for tokens, validates them both here and by the API, and shows what is refused.
func jwt(ctx context.Context, client *workloadapi.Client, audience string) error {
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	svids, err := client.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: audience, ExtraAudiences: []string{"another"}})
	if err != nil {
		return err
	}
	for _, svid := range svids {
		token := svid.Marshal()
		here, err := jwtsvid.ParseAndValidate(token, bundles, []string{audience})
		if err != nil {
			return err
		}
		there, err := client.ValidateJWTSVID(ctx, token, audience)
		if err != nil {
			return err
		}
		fmt.Printf("jwt id=%s validated=%s audience=%v hint=%q life=%s\n", here.ID, there.ID, there.Audience, svid.Hint, time.Until(svid.Expiry).Round(time.Minute))
	}
	token := svids[0].Marshal()
	_, err = client.ValidateJWTSVID(ctx, token, "somebody else")
	fmt.Printf("for somebody else: %s\n", status.Code(err))
	_, err = client.ValidateJWTSVID(ctx, token[:len(token)-4]+"AAAA", audience)
	fmt.Printf("with another signature: %s\n", status.Code(err))
	one, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, Subject: svids[0].ID})
	if err != nil {
		return err
	}
	fmt.Printf("one=%s\n", one.ID)
	_, err = client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, Subject: spiffeid.RequireFromString("spiffe://example.org/not/mine")})
	fmt.Printf("another identity: %s\n", status.Code(err))
	return nil
}

// watcher shows each update.
type watcher struct{}

func (watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	lines := []string{}
	for _, svid := range update.SVIDs {
		lines = append(lines, fmt.Sprintf("%s#%x", svid.ID, svid.Certificates[0].SerialNumber))
	}
	fmt.Printf("update svids=%s bundles=%s\n", strings.Join(lines, ","), domains(update.Bundles))
}

func (watcher) OnX509ContextWatchError(err error) { refused(err) }

func (watcher) OnX509BundlesUpdate(update *x509bundle.Set) {
	fmt.Printf("update bundles=%s\n", domains(update))
}

func (watcher) OnX509BundlesWatchError(err error) { refused(err) }

func (watcher) OnJWTBundlesUpdate(update *jwtbundle.Set) {
	keys := []string{}
	for _, bundle := range update.Bundles() {
		for id := range bundle.JWTAuthorities() {
			keys = append(keys, id)
		}
	}
	sort.Strings(keys)
	fmt.Printf("update keys=%s\n", strings.Join(keys, ","))
}

func (watcher) OnJWTBundlesWatchError(err error) { refused(err) }

func refused(err error) {
	if status.Code(err).String() != "Canceled" && status.Code(err).String() != "DeadlineExceeded" {
		fmt.Printf("refused code=%s\n", status.Code(err))
	}
}

func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err).String() == "DeadlineExceeded" {
		return nil
	}
	return err
}

// mutual speaks mutual TLS with SVIDs that the API renews.
func mutual(ctx context.Context, verb, socket, address string, peer spiffeid.ID) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
	if err != nil {
		return err
	}
	defer source.Close()
	authorize := tlsconfig.AuthorizeID(peer)
	if verb == "client" {
		transport := &http.Transport{TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, authorize)}
		response, err := (&http.Client{Transport: transport}).Get("https://" + address + "/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		fmt.Printf("%s %s", response.Status, body)
		return err
	}
	handler := func(writer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(writer, "%v at %s\n", request.TLS.PeerCertificates[0].URIs, request.RemoteAddr)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(handler), TLSConfig: tlsconfig.MTLSServerConfig(source, source, authorize)}
	return server.ServeTLS(listener, "", "")
}

func domains(set *x509bundle.Set) string {
	names := []string{}
	for _, bundle := range set.Bundles() {
		names = append(names, fmt.Sprintf("%s:%d", bundle.TrustDomain(), len(bundle.X509Authorities())))
	}
	sort.Strings(names)
	return strings.Join(names, ",")
}
