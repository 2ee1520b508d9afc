// Pushes by Go's net/http.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

type push struct {
	URL          string             `json:"url"`
	Fields       *map[string]string `json:"fields"`
	PauseSeconds float64            `json:"pause_seconds"`
}

type input struct {
	CA     string `json:"ca"`
	Kept   bool   `json:"kept"`
	Pushes []push `json:"pushes"`
}

func main() {
	var given input
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	transport := &http.Transport{DisableKeepAlives: !given.Kept}
	if given.CA != "" {
		pem, err := os.ReadFile(given.CA)
		if err != nil {
			panic(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	client := &http.Client{Transport: transport}
	for _, one := range given.Pushes {
		time.Sleep(time.Duration(one.PauseSeconds * float64(time.Second)))
		fmt.Println(send(client, one))
	}
}

func send(client *http.Client, one push) string {
	var body io.Reader
	if one.Fields != nil {
		form := url.Values{}
		for name, value := range *one.Fields {
			form.Set(name, value)
		}
		body = strings.NewReader(form.Encode())
	}
	request, err := http.NewRequest("POST", one.URL, body)
	if err != nil {
		return "failed " + err.Error()
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := client.Do(request)
	if err != nil {
		return "failed " + err.Error()
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	id := response.Header.Get("X-Push-Id")
	if id == "" {
		id = "-"
	}
	return fmt.Sprintf("%d %s", response.StatusCode, id)
}
