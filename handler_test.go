package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plivo/plivo-go/v7"
)

// Sections: phone numbers, config.json, answers, signatures, the process, edits
// of config.json while calls come in, privacy, robustness, fuzz targets, the
// README, and what they share.

// ---- Phone numbers ----

func TestNumberIsReadAsPeopleWriteIt(t *testing.T) {
	for text, digits := range map[string]string{
		"14156667777":        "14156667777",
		"+1 (415) 666-7777":  "14156667777",
		"1-415-666-7777":     "14156667777",
		"+1.415.666.7777":    "14156667777",
		" 14156667777":       "14156667777", // a + in an unescaped query arrives as a space
		"(+49) 30 123456":    "4930123456",
		"1234567":            "1234567",
		"123456789012345":    "123456789012345",
		"999 999 999 999999": "999999999999999",
	} {
		n, err := ParseNumber(text)
		if err != nil || n.Digits() != digits {
			t.Errorf("ParseNumber(%q) = %q, %v; want %q", text, n.Digits(), err, digits)
		}
	}
}

func TestMalformedNumberIsRefused(t *testing.T) {
	for text, reason := range map[string]string{
		"":                     "0 digits",
		"+":                    "0 digits",
		"123456":               "6 digits",
		"1234567890123456":     "16 digits",
		"99999999999999999999": "20 digits",
		"04156667777":          "begins with 0",
		"0014156667777":        "begins with 0",
		"1+4156667777":         "a + that is not its first",
		"++14156667777":        "a + that is not its first",
		"1415666777x":          "a character",
		"1415\t6667777":        "a character",
		"１４１５６６６７７７７":          "a character",
		"anonymous":            "a character",
		"sip:a@b.example":      "a character",
		"1415666\xff7777":      "a character",
	} {
		n, err := ParseNumber(text)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseNumber(%q) = %v, %v; want an error with %q", text, n, err, reason)
		} else if longDigits.MatchString(err.Error()) {
			t.Errorf("ParseNumber(%q): the error shows the number: %v", text, err)
		}
	}
}

func TestNumberPrintsMaskedHoweverItIsPrinted(t *testing.T) {
	n := number(t, "14156667777")
	type holder struct {
		Open   Number
		hidden Number
		ptr    *Number
		list   []Number
		keyed  map[Number]side
	}
	h := holder{n, n, &n, []Number{n}, map[Number]side{n: {peer: n}}}
	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%b", "%e", "%t", "%U", "%20v"} {
		fmt.Fprintf(&printed, verb+" "+verb+" "+verb+" "+verb+"\n", n, &n, h, &h)
	}
	slog.New(slog.NewTextHandler(&printed, nil)).Info("text", "n", n, "h", h)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("json", "n", n, "h", h)
	fmt.Fprintln(&printed, fmt.Errorf("wrapped: %v", n), n)
	for _, form := range []string{"14156667777", "6667777", fmt.Sprintf("%x", 14156667777), fmt.Sprintf("%X", 14156667777), fmt.Sprintf("%o", 14156667777), fmt.Sprintf("%b", 14156667777)} {
		if strings.Contains(printed.String(), form) {
			t.Errorf("the number shows as %s in:\n%s", form, printed.String())
		}
	}
	if got := n.String(); got != "*******7777" {
		t.Errorf("masked: %s, want *******7777", got)
	}
	if got := (Number{}).String() + (Number{}).Digits(); got != "none" {
		t.Errorf("no number: %q, want none", got)
	}
}

func TestRedactMasksWhatCouldBeANumber(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"NORMAL_CLEARING":                      "NORMAL_CLEARING",
		"123456":                               "123456",
		"14156667777":                          "*******7777",
		"x14156667777y":                        "x*******7777y",
		"1415\x006667777":                      "********7777",
		"1415\u200b666\n7777":                  "*********7777",
		"X\x0066777":                           "X 66777",
		"call +1 (415) 666-7777 now":           "call +************7777 now",
		"14156667777-a-a-a-aaaaaaaaaaaaaaaaaa": "*******7777-a-a-a-aaaaaaaaaaaaaaaaaa", // as long as a UUID, and no UUID
		"97ceeb52-58b6-11e1-86da-773000068111": "97ceeb52-58b6-11e1-86da-773000068111",
		"http://127.0.0.1:5000/handleincoming": "http://127.0.0.1:5000/handleincoming",
		strings.Repeat("a", 200):               strings.Repeat("a", 100) + "…",
	} {
		if got := redact(text); got != want {
			t.Errorf("redact(%q) = %q, want %q", text, got, want)
		}
	}
}

// ---- config.json ----

func TestShippedConfig(t *testing.T) {
	config, err := (&ConfigFile{path: "config.json"}).Load()
	if err != nil {
		t.Fatal(err)
	}
	if config.Port != 5000 || config.Pairings() != 3 {
		t.Errorf("port %d, %d pairings; want 5000, 3", config.Port, config.Pairings())
	}
}

func TestConfigLookup(t *testing.T) {
	config := parse(t, `{"customerAgentMap": {"+1 (415) 666-7777": "1-415-666-7778", "14156667779": "14156667780"}}`)
	if config.Port != 5000 {
		t.Errorf("port %d, want the default 5000", config.Port)
	}
	for caller, want := range map[string]string{
		"14156667777": "14156667778, and the caller is the customer",
		"14156667778": "14156667777, and the caller is the agent",
		"14156667779": "14156667780, and the caller is the customer",
		"14156667780": "14156667779, and the caller is the agent",
		"14156667781": "nobody",
	} {
		got := "nobody"
		if peer, role, ok := config.Peer(number(t, caller), number(t, plivoNumber)); ok {
			got = fmt.Sprintf("%s, and the caller is the %s", peer.Digits(), role)
		}
		if got != want {
			t.Errorf("%s rings %s; want %s", caller, got, want)
		}
	}
}

func TestGoodConfigs(t *testing.T) {
	for name, test := range map[string]struct {
		text           string
		port, pairings int
	}{
		"no pairings yet":          {`{"customerAgentMap": {}}`, 5000, 0},
		"byte order mark":          {"\uFEFF" + `{"app": {"port": 8080}, "customerAgentMap": {"14156667777": "14156667778"}}`, 8080, 1},
		"only plivoNumbers":        {`{"plivoNumbers": {"14155550100": {"14156667777": "14156667778"}, "14155550101": {"14156667779": "14156667778"}}}`, 5000, 2},
		"Plivo number, no pairing": {`{"plivoNumbers": {"14155550100": {}}}`, 5000, 0},
		"empty app":                {`{"app": {}, "customerAgentMap": {}}`, 5000, 0},
		"Windows line ends":        {"{\r\n\"customerAgentMap\": {\r\n\"14156667777\": \"14156667778\"\r\n}\r\n}\r\n", 5000, 1},
		"lowest and highest port":  {`{"app": {"port": 65535}, "customerAgentMap": {}}`, 65535, 0},
	} {
		t.Run(name, func(t *testing.T) {
			config := parse(t, test.text)
			if config.Port != test.port || config.Pairings() != test.pairings {
				t.Errorf("port %d, %d pairings; want %d, %d", config.Port, config.Pairings(), test.port, test.pairings)
			}
		})
	}
}

// Each bad config comes with its whole message, a line of which is written
// LINE: TEXT or LINE:COLUMN: TEXT, without the file's name.
func TestBadConfigs(t *testing.T) {
	const (
		anyone      = `"14156667777": "14156667778"`
		oneOf       = ", and only one phone can ring: change or remove one of the two"
		dialsItself = ", which would then dial itself: change or remove one of the two"
		syntax      = ": look for a missing comma, quote or brace here or just before"
		outOfPort   = `"port" must be a whole number from 1 to 65535, without quotes`
	)
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"empty":               {"", []string{`1:1: the file is empty: write at least { "customerAgentMap": {} }`}},
		"blank":               {" \n\n", []string{`2:1: the file is empty: write at least { "customerAgentMap": {} }`}},
		"half-written":        {"{\n  \"customerAgentMap\": {\n    \"14156667777\": \"1415", []string{"3:24: unexpected end of JSON input" + syntax}},
		"trailing comma":      {"{\n  \"customerAgentMap\": {\n    " + anyone + ",\n  }\n}", []string{"3:33: a comma before a closing brace: remove the comma"}},
		"missing comma":       {"{\"customerAgentMap\": {\n\"14156667777\": \"14156667778\"\n\"14156667779\": \"14156667780\"}}", []string{`3:1: invalid character '"' after object key:value pair` + syntax}},
		"single quotes":       {"{'customerAgentMap': {}}", []string{`1:2: invalid character '\'' looking for beginning of object key string` + syntax}},
		"more than an object": {"{\"customerAgentMap\": {}}\n{}", []string{`2:1: invalid character '{' after top-level value` + syntax}},
		"column after umlaut": {`{"ü": x}`, []string{`1:7: invalid character 'x' looking for beginning of value` + syntax}},

		"no object":         {"[]", []string{"1: the file must be an object: write it as { … }", `1: there are no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet`}},
		"no map":            {"{\n}", []string{`2: there are no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet`}},
		"map is a list":     {"{\n\"customerAgentMap\": [{\"a\": [1]}]\n}", []string{`2: "customerAgentMap" must be an object: write it as { … }`}},
		"map is null":       {"{\"customerAgentMap\": null}", []string{`1: "customerAgentMap" must be an object: write it as { … }`}},
		"app is a number":   {"{\"app\": 5000,\n\"customerAgentMap\": {}}", []string{`1: "app" must be an object: write it as { … }`}},
		"unknown key":       {"{\n\"customerAgentMap\": {},\n\"ports\": {\"a\": [{}, {}]}}", []string{`3: unknown key "ports" in the file: remove it, or write one of ["app" "call" "customerAgentMap" "plivoNumbers"]`}},
		"key in wrong case": {"{\"customerAgentMap\": {},\n\"APP\": 1}", []string{`2: unknown key "APP" in the file: remove it, or write one of ["app" "call" "customerAgentMap" "plivoNumbers"]`}},
		"number as key":     {"{\"customerAgentMap\": {},\n" + anyone + "}", []string{`2: unknown key "*******7777" in the file: remove it, or write one of ["app" "call" "customerAgentMap" "plivoNumbers"]`}},
		"unknown app key":   {"{\"app\": {\n\"prot\": 1}, \"customerAgentMap\": {}}", []string{`2: unknown key "prot" in "app": remove it, or write one of ["port"]`}},
		"doubled key":       {"{\"customerAgentMap\": {},\n\n\"customerAgentMap\": {" + anyone + "}}", []string{`3: "customerAgentMap" is already in line 1: keep one of the two`}},
		"doubled app key":   {"{\"customerAgentMap\": {}, \"app\": {\"port\": 1,\n\"port\": 2}}", []string{`2: "port" is already in line 1: keep one of the two`}},

		"port as text":   {"{\"customerAgentMap\": {},\n\"app\": {\"port\": \"5000\"}}", []string{"2: " + outOfPort}},
		"port 0":         {"{\"customerAgentMap\": {},\n\"app\": {\"port\": 0}}", []string{"2: " + outOfPort}},
		"port 65536":     {"{\"customerAgentMap\": {},\n\"app\": {\"port\": 65536}}", []string{"2: " + outOfPort}},
		"port 5000.5":    {"{\"customerAgentMap\": {},\n\"app\": {\"port\": 5000.5}}", []string{"2: " + outOfPort}},
		"port is a list": {"{\"customerAgentMap\": {},\n\"app\": {\"port\": [1]}}", []string{"2: " + outOfPort}},

		"agent is a number":    {"{\"customerAgentMap\": {\n\"14156667777\": 14156667778}}", []string{"2: the agent must be a phone number in quotes"}},
		"agent is a list":      {"{\"customerAgentMap\": {\n\"14156667777\": [\"14156667778\"]}}", []string{"2: the agent must be a phone number in quotes"}},
		"agent is an object":   {"{\"customerAgentMap\": {\n\"14156667777\": {\n\"a\": 1\n},\n\"1\": \"14156667778\"}}", []string{"2: the agent must be a phone number in quotes", "5: the customer is no phone number: it has 1 digits; write 7 to 15, country code included"}},
		"long unknown value":   {"{\"a\": [\n1,\n2],\n\"customerAgentMap\": [\n1\n]}", []string{`1: unknown key "a" in the file: remove it, or write one of ["app" "call" "customerAgentMap" "plivoNumbers"]`, `4: "customerAgentMap" must be an object: write it as { … }`}},
		"malformed agent":      {"{\"customerAgentMap\": {\n\"14156667777\": \"0415 6667778\"}}", []string{"2: the agent is no phone number: it begins with 0; begin with the country code, without 0 or 00"}},
		"malformed customer":   {"{\"customerAgentMap\": {\n\"1415666777O\": \"14156667778\"}}", []string{"2: the customer is no phone number: it has a character other than digits, a + in front, spaces and - . ( ); remove that"}},
		"paired with itself":   {"{\"customerAgentMap\": {\n\"14156667777\": \"+14156667777\"}}", []string{"2: the customer is paired with itself: write the agent's number after the customer's"}},
		"customer twice":       {"{\"customerAgentMap\": {\n" + anyone + ",\n\n\"+1 415 666 7777\": \"14156667779\"}}", []string{"4: the customer is already the customer of the pairing in line 2" + oneOf}},
		"agent twice":          {"{\"customerAgentMap\": {\n" + anyone + ",\n\"14156667779\": \"1 415 666 7778\"}}", []string{"3: the agent is already the agent of the pairing in line 2" + oneOf}},
		"agent is a customer":  {"{\"customerAgentMap\": {\n" + anyone + ",\n\"14156667779\": \"14156667777\"}}", []string{"3: the agent is already the customer of the pairing in line 2" + oneOf}},
		"customer is an agent": {"{\"customerAgentMap\": {\n" + anyone + ",\n\"14156667778\": \"14156667779\"}}", []string{"3: the customer is already the agent of the pairing in line 2" + oneOf}},

		"malformed Plivo number":    {"{\"plivoNumbers\": {\n\"1\": {\n\"14156667777\": 0, \"14156667777\": \"14156667778\"}}, \"customerAgentMap\": {" + anyone + "}}", []string{"2: the Plivo number is no phone number: it has 1 digits; write 7 to 15, country code included", "3: the agent must be a phone number in quotes"}},
		"Plivo number without map":  {"{\"plivoNumbers\": {\n\"14155550100\": \"14156667777\"}}", []string{"2: what follows a Plivo number must be an object: write it as { … }"}},
		"Plivo number twice":        {"{\"plivoNumbers\": {\n\"14155550100\": {},\n\"+1 415 555 0100\": {}}}", []string{"3: the Plivo number is already in line 2: put all its pairings there"}},
		"agent twice on a number":   {"{\"plivoNumbers\": {\"14155550100\": {\n" + anyone + ",\n\"14156667779\": \"14156667778\"}}}", []string{"3: the agent is already the agent of the pairing in line 2" + oneOf}},
		"Plivo number as customer":  {"{\"plivoNumbers\": {\n\"14156667777\": {}},\n\"customerAgentMap\": {\n" + anyone + "}}", []string{"4: the customer is also the Plivo number in line 2" + dialsItself}},
		"Plivo number as agent":     {"{\"customerAgentMap\": {\n" + anyone + "},\n\"plivoNumbers\": {\n\"14156667778\": {}}}", []string{"2: the agent is also the Plivo number in line 4" + dialsItself}},
		"Plivo number as own agent": {"{\"plivoNumbers\": {\n\"14155550100\": {\n\"14156667777\": \"14155550100\"}}}", []string{"3: the agent is also the Plivo number in line 2" + dialsItself}},
		"plivoNumbers is a list":    {"{\n\"plivoNumbers\": []}", []string{`2: "plivoNumbers" must be an object: write it as { … }`}},
		"unknown call key":          {"{\"customerAgentMap\": {}, \"call\": {\n\"timeout\": 1}}", []string{`2: unknown key "timeout" in "call": remove it, or write one of ["connectingMessage" "ringTimeout" "timeLimit" "unknownCallerMessage"]`}},
		"message is a number":       {"{\"customerAgentMap\": {}, \"call\": {\n\"connectingMessage\": 1}}", []string{`2: "connectingMessage" must be a text in quotes, of at most 10000 bytes`}},
		"message is too long":       {"{\"customerAgentMap\": {}, \"call\": {\n\"unknownCallerMessage\": \"" + strings.Repeat("x", 10001) + "\"}}", []string{`2: "unknownCallerMessage" must be a text in quotes, of at most 10000 bytes`}},
		"ring timeout 0":            {"{\"customerAgentMap\": {}, \"call\": {\n\"ringTimeout\": 0}}", []string{`2: "ringTimeout" must be a whole number from 1 to 86400, without quotes`}},
		"time limit 1.5":            {"{\"customerAgentMap\": {}, \"call\": {\n\"timeLimit\": 1.5}}", []string{`2: "timeLimit" must be a whole number from 1 to 86400, without quotes`}},
		"time limit as text":        {"{\"customerAgentMap\": {}, \"call\": {\n\"timeLimit\": \"60\"}}", []string{`2: "timeLimit" must be a whole number from 1 to 86400, without quotes`}},
		"time limit too long":       {"{\"customerAgentMap\": {}, \"call\": {\n\"timeLimit\": 14400000}}", []string{`2: "timeLimit" must be a whole number from 1 to 86400, without quotes`}},

		"all at once": {"{\n\"prot\": 1,\n\"app\": {\"port\": -1},\n\"customerAgentMap\": {\n\"1\": 2,\n\"14156667777\": true\n}}", []string{
			`2: unknown key "prot" in the file: remove it, or write one of ["app" "call" "customerAgentMap" "plivoNumbers"]`,
			"3: " + outOfPort,
			"5: the customer is no phone number: it has 1 digits; write 7 to 15, country code included",
			"5: the agent must be a phone number in quotes",
			"6: the agent must be a phone number in quotes",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig("config.json", []byte(test.text))
			if err == nil {
				t.Fatal("was accepted")
			}
			want := "config.json:" + strings.Join(test.want, "\nconfig.json:")
			if err.Error() != want {
				t.Errorf("message:\n%v\nwant:\n%v", err, want)
			}
			if longDigits.MatchString(err.Error()) {
				t.Errorf("the message shows a phone number: %v", err)
			}
		})
	}
}

func TestOfManyProblemsTwentyAreListed(t *testing.T) {
	var b strings.Builder
	b.WriteString("{\"customerAgentMap\": {\n")
	for i := range 25 {
		fmt.Fprintf(&b, "\"1415666%04d\": 0,\n", i)
	}
	b.WriteString("\"14156667777\": \"14156667778\"}}")
	_, err := ParseConfig("config.json", []byte(b.String()))
	if err == nil {
		t.Fatal("was accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 21 || lines[19] != "config.json:21: the agent must be a phone number in quotes" || lines[20] != "config.json: 5 more problems like these" {
		t.Errorf("got %d lines, ending in\n%s", len(lines), strings.Join(lines[max(0, len(lines)-2):], "\n"))
	}
}

func TestUnreadableConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := (&ConfigFile{path: filepath.Join(dir, "config.json")}).Load(); err == nil || !strings.Contains(err.Error(), "name another file with -config") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := (&ConfigFile{path: dir}).Load(); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
}

// A look tells of an edit at the next look; a load tells nothing twice.
func TestConfigFileTellsOfEachEditOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	file := &ConfigFile{path: path}
	load := func(edited bool, want string) {
		t.Helper()
		if got := file.Edited(); got != edited {
			t.Fatalf("Edited() = %t", got)
		}
		if _, err := file.Load(); !strings.Contains(fmt.Sprint(err), want) {
			t.Fatalf("Load(): %v; want %s", err, want)
		}
	}
	load(false, "no such file")
	load(true, ErrKnown.Error())
	write(t, path, "{")
	load(true, "unexpected end")
	load(true, ErrKnown.Error())
	load(false, ErrKnown.Error())
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	load(false, ErrKnown.Error())
	load(true, ErrKnown.Error())
	write(t, path, sampleConfig)
	load(false, "<nil>")
	load(true, ErrKnown.Error())
	file.Forget()
	load(false, "<nil>")
}

// ---- Answers ----

const (
	connect  = `<Response><Dial callerId="` + plivoNumber + `"><Number>%s</Number></Dial></Response>`
	rejected = `<Response><Hangup reason="rejected"></Hangup></Response>`
	nothing  = `<Response></Response>`
)

// Each row is a way to describe a call, as a query; each is tried by GET, by
// POST with a form and by POST with a query, with and without the slash.
func TestAnswers(t *testing.T) {
	toPlivo := "&To=" + plivoNumber
	for name, test := range map[string]struct {
		query, answer, log string
	}{
		"customer calls":         {"From=14156667777" + toPlivo + "&CallUUID=97ceeb52-58b6-11e1-86da-77300b68f8bb&CallStatus=ringing&Direction=inbound&Event=StartApp", fmt.Sprintf(connect, "14156667778"), `call=97ceeb52-58b6-11e1-86da-77300b68f8bb from=*******7777 to=*******0100 caller=customer dialled=*******7778`},
		"agent calls":            {"From=14156667778" + toPlivo, fmt.Sprintf(connect, "14156667777"), `from=*******7778 to=*******0100 caller=agent dialled=*******7777`},
		"escaped plus":           {"From=%2B14156667777&To=%2B" + plivoNumber, fmt.Sprintf(connect, "14156667778"), "connected"},
		"unescaped plus":         {"From=+14156667777&To=+" + plivoNumber, fmt.Sprintf(connect, "14156667778"), "connected"},
		"stranger calls":         {"From=14156660000" + toPlivo, rejected, `call="" from=*******0000 to=*******0100`},
		"anonymous":              {"From=anonymous" + toPlivo, rejected, "from=none"},
		"withheld":               {"From=" + toPlivo, rejected, "from=none"},
		"SIP address":            {"From=sip%3Abob14156667777%40phone.plivo.com" + toPlivo, rejected, "from=none"},
		"dials the Plivo number": {"From=14156667777&To=14156667778", rejected, `level=WARN msg="call rejected: the number to dial is the Plivo number called`},
		"calls itself":           {"From=14156667777&To=14156667777", rejected, `level=WARN msg="call rejected: the Plivo number calls itself"`},
		"stranger calls itself":  {"From=14156660000&To=14156660000", rejected, "level=WARN"},
		"hangup event":           {"Event=Hangup&From=14156667777" + toPlivo + "&Duration=42&HangupCause=NORMAL_CLEARING&CallUUID=abc", nothing, `call=abc from=*******7777 to=*******0100 cause=NORMAL_CLEARING seconds=42`},
		"hangup cause only":      {"From=14156667777" + toPlivo + "&HangupCause=USER_BUSY", nothing, "cause=USER_BUSY"},
		"hangup by newer names":  {"Event=Hangup&From=14156667777" + toPlivo + "&HangupCauseName=Rejected&HangupSource=Callee", nothing, "cause=Rejected"},
		"hangup without numbers": {"Event=Hangup", nothing, "from=none to=none"},
		"empty hangup cause":     {"From=14156667777" + toPlivo + "&HangupCause=", fmt.Sprintf(connect, "14156667778"), "connected"},
	} {
		for _, path := range []string{"/handleincoming/", "/handleincoming"} {
			for method, request := range map[string]*http.Request{
				"GET":             httptest.NewRequest("GET", path+"?"+test.query, nil),
				"POST with form":  postForm(path, test.query),
				"POST with query": httptest.NewRequest("POST", path+"?"+test.query, nil),
			} {
				t.Run(name+" "+path+" "+method, func(t *testing.T) {
					s := newServer(t)
					w := s.send(request)
					if w.Code != 200 {
						t.Fatalf("status %d: %s", w.Code, w.Body)
					}
					if got, want := w.Header()["Content-Type"], []string{"application/xml"}; !reflect.DeepEqual(got, want) {
						t.Errorf("Content-Type %q, want %q", got, want)
					}
					if got := w.Header().Get("Cache-Control"); got != "no-store" {
						t.Errorf("Cache-Control %q", got)
					}
					sameXML(t, w.Body.String(), test.answer)
					if got := s.log.String(); !strings.Contains(got, test.log) || strings.Count(got, "\n") != 1 {
						t.Errorf("log: %swant one line with: %s", got, test.log)
					}
				})
			}
		}
	}
}

// One agent, 14156660001, serves a customer on each of two Plivo numbers, and
// one who may call any.
func TestPlivoNumbersOwnPairings(t *testing.T) {
	config := parse(t, `{
		"customerAgentMap": {"14156660002": "14156660001"},
		"plivoNumbers": {
			"14155550101": {"14156660003": "14156660001"},
			"+1 (415) 555-0102": {"14156660004": "14156660001", "14156660005": "14156660006"}
		}}`)
	checkUnambiguous(t, config)
	if config.Pairings() != 4 {
		t.Errorf("%d pairings", config.Pairings())
	}
	for _, test := range []struct{ from, to, dialled string }{
		{"14156660001", "14155550100", "14156660002"},
		{"14156660002", "14155550100", "14156660001"},
		{"14156660001", "14155550101", "14156660003"},
		{"14156660003", "14155550101", "14156660001"},
		{"14156660001", "14155550102", "14156660004"},
		{"14156660004", "14155550102", "14156660001"},
		{"14156660005", "14155550102", "14156660006"},
		{"14156660006", "14155550102", "14156660005"},
		{"14156660002", "14155550101", "14156660001"}, // customerAgentMap holds for any number
		{"14156660003", "14155550100", ""},
		{"14156660003", "14155550102", ""},
		{"14156660006", "14155550101", ""},
	} {
		s := newServer(t)
		s.handler.config = func() *Config { return config }
		w := s.send(postForm("/handleincoming/", "From="+test.from+"&To="+test.to))
		want := rejected
		if test.dialled != "" {
			want = `<Response><Dial callerId="` + test.to + `"><Number>` + test.dialled + `</Number></Dial></Response>`
		}
		sameXML(t, w.Body.String(), want)
	}
}

func TestCallOptions(t *testing.T) {
	for name, test := range map[string]struct{ call, known, unknown string }{
		"none":     {`{}`, fmt.Sprintf(connect, "14156667778"), rejected},
		"messages": {`{"unknownCallerMessage": "Who?", "connectingMessage": "One moment."}`, `<Response><Speak>One moment.</Speak><Dial callerId="` + plivoNumber + `"><Number>14156667778</Number></Dial></Response>`, `<Response><Speak>Who?</Speak><Hangup></Hangup></Response>`},
		"limits":   {`{"ringTimeout": 30, "timeLimit": 86400}`, `<Response><Dial timeLimit="86400" timeout="30" callerId="` + plivoNumber + `"><Number>14156667778</Number></Dial></Response>`, rejected},
	} {
		t.Run(name, func(t *testing.T) {
			config := parse(t, `{"call": `+test.call+`, "customerAgentMap": {"14156667777": "14156667778"}}`)
			s := newServer(t)
			s.handler.config = func() *Config { return config }
			for from, want := range map[string]string{"14156667777": test.known, "12025550123": test.unknown, "anonymous": test.unknown, plivoNumber: test.unknown} {
				sameXML(t, s.send(postForm("/handleincoming/", "From="+from+"&To="+plivoNumber)).Body.String(), want)
			}
			sameXML(t, s.send(postForm("/handleincoming/", "Event=Hangup")).Body.String(), nothing)
		})
	}
}

// Whatever a message holds, it comes out as the text of one Speak element.
func TestAnyMessageIsWellFormedXML(t *testing.T) {
	for _, text := range []string{`<Dial callerId="1"><Number>2</Number></Dial>`, "</Speak></Response>", "a & b < c > \"d\" 'e'", "]]>", "<Contents>", "&lt;Contents&gt;", "<!-- -->", "line\nbreak\ttab", "ü € 😀", "\x00\x01\x1f\x7f\ufffe\uffff"} {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		config := parse(t, `{"call": {"unknownCallerMessage": `+string(quoted)+`, "connectingMessage": `+string(quoted)+`}, "customerAgentMap": {"14156667777": "14156667778"}}`)
		s := newServer(t)
		s.handler.config = func() *Config { return config }
		for from, children := range map[string]string{"14156667777": "Speak Dial", "12025550123": "Speak Hangup"} {
			body := s.send(postForm("/handleincoming/", "From="+from+"&To="+plivoNumber)).Body.String()
			response, err := parseXML(body)
			if err != nil {
				t.Errorf("%q: %v: %s", text, err, body)
				continue
			}
			var names []string
			for _, child := range response.Children {
				names = append(names, child.XMLName.Local)
			}
			spoken := response.Children[0]
			want := regexp.MustCompile("[\x00\x01\x1f\ufffe\uffff]").ReplaceAllString(text, "\uFFFD") // not allowed in XML
			if strings.Join(names, " ") != children || spoken.Text != want || spoken.Children != nil {
				t.Errorf("%q: %s", text, body)
			}
		}
	}
}

func TestWhatIsNoCallIsRefused(t *testing.T) {
	big := "From=14156667777&To=14155550100&x=" + strings.Repeat("x", 64<<10)
	exact := "From=14156667777&To=14155550100&x="
	exact += strings.Repeat("x", 64<<10-len(exact))
	asJSON := httptest.NewRequest("POST", "/handleincoming/", strings.NewReader(`{"From": "14156667777"}`))
	asJSON.Header.Set("Content-Type", "application/json")
	halfway := httptest.NewRequest("POST", "/handleincoming/", io.MultiReader(strings.NewReader("From=14156667777&To=141"), &brokenReader{}))
	halfway.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	badType := postForm("/handleincoming/", "From=14156667777&To=14155550100")
	badType.Header.Set("Content-Type", "application/x-www-form-urlencoded; =")

	for name, test := range map[string]struct {
		request *http.Request
		status  int
		body    string
	}{
		"opened in a browser": {httptest.NewRequest("GET", "/handleincoming/", nil), 400, "From is missing.\nA call looks like /handleincoming/?From="},
		"no To":               {httptest.NewRequest("GET", "/handleincoming/?From=14156667777", nil), 400, "To is missing"},
		"empty To":            {httptest.NewRequest("GET", "/handleincoming/?From=14156667777&To=", nil), 400, "To is not a phone number"},
		"SIP To":              {httptest.NewRequest("GET", "/handleincoming/?From=14156667777&To=sip%3Aa%40b", nil), 400, "To is not a phone number"},
		"two Froms":           {httptest.NewRequest("GET", "/handleincoming/?From=14156667777&To=14155550100&From=14156667779", nil), 400, "From is given more than once"},
		"To in both":          {postForm("/handleincoming/?To=14155550100", "From=14156667777&To=14155550101"), 400, "To is given more than once"},
		"JSON":                {asJSON, 400, "From is missing"},
		"bad escape in query": {httptest.NewRequest("GET", "/handleincoming/?From=%zz14156667777&To=14155550100", nil), 400, "cannot be parsed"},
		"bad escape in form":  {postForm("/handleincoming/", "From=1415666%7777&To=%"), 400, "cannot be parsed"},
		"semicolons":          {httptest.NewRequest("GET", "/handleincoming/?From=14156667777;To=14155550100", nil), 400, "cannot be parsed"},
		"bad content type":    {badType, 400, "cannot be parsed"},
		"form breaks off":     {halfway, 400, "cannot be parsed"},
		"form too large":      {postForm("/handleincoming/", big), 413, "larger than 64 KiB"},
		"form just fits":      {postForm("/handleincoming/", exact), 200, "14156667778"},
		"PUT":                 {httptest.NewRequest("PUT", "/handleincoming/", nil), 405, "Use GET or POST"},
		"HEAD":                {httptest.NewRequest("HEAD", "/handleincoming", nil), 405, ""},
		"root":                {httptest.NewRequest("GET", "/", nil), 404, "/handleincoming/"},
		"longer path":         {httptest.NewRequest("POST", "/handleincoming/x", nil), 404, "/handleincoming/"},
		"double slash":        {httptest.NewRequest("POST", "//handleincoming/", nil), 404, "/handleincoming/"},
		"dots":                {httptest.NewRequest("GET", "/x/../handleincoming/", nil), 404, "/handleincoming/"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			w := s.send(test.request)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
				t.Errorf("status %d, body %q; want %d and %q", w.Code, w.Body, test.status, test.body)
			}
			if test.status == 200 {
				return
			}
			if test.status == 405 && w.Header().Get("Allow") != "GET, POST" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
			if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
				t.Errorf("Content-Type %q", got)
			}
			if shown := longDigits.FindString(w.Body.String() + s.log.String()); shown != "" {
				t.Errorf("%s shows in the answer %q or in the log %q", shown, w.Body, s.log)
			}
		})
	}
}

type brokenReader struct{}

func (*brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHealthz(t *testing.T) {
	s := newServer(t)
	if w := s.send(httptest.NewRequest("GET", "/healthz", nil)); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("GET: %d %q", w.Code, w.Body)
	}
	if w := s.send(httptest.NewRequest("HEAD", "/healthz", nil)); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
	if w := s.send(httptest.NewRequest("POST", "/healthz", nil)); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	if s.log.String() != "" {
		t.Errorf("a health check is logged: %s", s.log)
	}
}

// ---- Signatures ----

const (
	token = "Y2Q2ZDgxZmY5YWRiOTI5YmQ1Njg0MTAxZWIyOTc4"
	nonce = "31627761595286130198"
)

// The signatures are those of plivo-go's own tests (utils_test.go).
func TestSignaturesOfPlivosOwnTests(t *testing.T) {
	params := url.Values{
		"Direction": {"outbound"}, "From": {"19792014278"}, "ALegUUID": {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"CallStatus": {"in-progress"}, "BillRate": {"0.002"}, "ParentAuthID": {"MANWVLYTK4ZWU1YTY4QA"},
		"To":              {"sip:PlivoSignature382029104058171078704104@phone-qa.voice.plivodev.com"},
		"ALegRequestUUID": {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"}, "CallUUID": {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"RequestUUID":  {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"SIP-H-To":     {"<sip:PlivoSignature382029104058171078704104@52.9.11.55;transport=udp>;tag=1"},
		"SessionStart": {"2020-04-08 11:34:33.238707"}, "Event": {"StartApp"},
	}.Encode()
	const path = "/api/v1/validate_signature03.xml"
	for signature, request := range map[string]*http.Request{
		"k7Pusd4OxCIjR5IfA9iedDNu/h/gbdYqdzG/MiYtd1c=": postForm(path+"/?a=b&c=d", params),
		"UBq8jAtd32wR8EK9VgxbBn4n5rpI/l1H9iN4WfSEHFQ=": httptest.NewRequest("GET", path+"/?a=b&c=d&"+params, nil),
		"iAjE5QqI37mbkYe4w3jTMudqEzbDufdqi7sYwTu64e0=": postForm(path, params),
		"i/MQsaQSAd6fiKhOh2qeeeLHZ9faldADSb3/7+Akfbc=": httptest.NewRequest("GET", path+"?"+params, nil),
	} {
		request.Host = "plivobin.non-prod.plivops.com"
		request.Header.Set("X-Forwarded-Proto", "https")
		request.Header.Set("X-Plivo-Signature-V3", signature)
		request.Header.Set("X-Plivo-Signature-V3-Nonce", nonce)
		if err := request.ParseForm(); err != nil {
			t.Fatal(err)
		}
		verifier, err := NewVerifier(token, "")
		if err != nil {
			t.Fatal(err)
		}
		if called, err := verifier.Verify(request); err != nil {
			t.Errorf("%s %s (taken for %s): %v", request.Method, request.URL, called, err)
		}
		request.Header.Set("X-Plivo-Signature-V3-Nonce", nonce+"0")
		if _, err := verifier.Verify(request); err == nil {
			t.Errorf("%s %s: is accepted with another nonce", request.Method, request.URL)
		}
	}
}

// signed signs a request as Plivo would on calling base + the request's path.
func signed(r *http.Request, base string) *http.Request {
	params := map[string]string{}
	if r.Method == "POST" {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, _ := url.ParseQuery(string(body))
		for name := range form {
			params[name] = form.Get(name)
		}
	}
	r.Header.Set("X-Plivo-Signature-V3-Nonce", nonce)
	r.Header.Set("X-Plivo-Signature-V3", plivo.ComputeSignatureV3(token, base+r.URL.RequestURI(), r.Method, nonce, params))
	return r
}

const form = "CallUUID=97ceeb52-58b6-11e1-86da-77300b68f8bb&Event=StartApp&From=14156667777&To=" + plivoNumber

func TestSignedRequestIsAnswered(t *testing.T) {
	get := func() *http.Request { return httptest.NewRequest("GET", "/handleincoming/?"+form, nil) }
	post := func() *http.Request { return postForm("/handleincoming/", form) }
	with := func(r *http.Request, headers ...string) *http.Request {
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return r
	}
	ma := signed(post(), "http://example.com")
	ma.Header["X-Plivo-Signature-Ma-V3"] = ma.Header["X-Plivo-Signature-V3"]
	ma.Header["X-Plivo-Signature-V3"] = []string{"another"}
	several := signed(get(), "http://example.com")
	several.Header.Set("X-Plivo-Signature-V3", "another, "+several.Header.Get("X-Plivo-Signature-V3")+",third")
	for name, test := range map[string]struct {
		public  string
		request *http.Request
	}{
		"GET":                       {"", signed(get(), "http://example.com")},
		"POST":                      {"", signed(post(), "http://example.com")},
		"POST without slash":        {"", signed(postForm("/handleincoming", form), "http://example.com")},
		"POST with query":           {"", signed(postForm("/handleincoming/?a=b&c=d%20e%26f", form), "http://example.com")},
		"POST with query only":      {"", signed(httptest.NewRequest("POST", "/handleincoming/?"+form, nil), "http://example.com")},
		"special characters":        {"", signed(postForm("/handleincoming/", form+"&SIP-H-To=%3Csip%3Aa%3Bt%3Dudp%3E%26%23%3F%2B%20%C3%BC"), "http://example.com")},
		"special characters in GET": {"", signed(httptest.NewRequest("GET", "/handleincoming/?"+form+"&SIP-H-To=%3Csip%3Aa%3Bt%3Dudp%3E%26%23%3F%2B%20%C3%BC", nil), "http://example.com")},
		"main account's":            {"", ma},
		"several":                   {"", several},
		"port":                      {"", signed(httptest.NewRequest("GET", "http://example.com:5000/handleincoming/?"+form, nil), "http://example.com:5000")},
		"https by header":           {"", signed(with(get(), "X-Forwarded-Proto", "HTTPS"), "https://example.com")},
		"chain of proxies":          {"", signed(with(get(), "X-Forwarded-Proto", "https, http", "X-Forwarded-Host", "a.ngrok-free.app, b"), "https://a.ngrok-free.app")},
		"PUBLIC_URL":                {"https://mask.example", signed(get(), "https://mask.example")},
		"PUBLIC_URL with prefix":    {"https://mask.example/pre/fix/", signed(post(), "https://mask.example/pre/fix")},
		"PUBLIC_URL beats headers":  {"https://mask.example", signed(with(get(), "X-Forwarded-Proto", "http", "X-Forwarded-Host", "b"), "https://mask.example")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.checkSignatures(t, test.public)
			w := s.send(test.request)
			if w.Code != 200 {
				t.Fatalf("status %d; log: %s", w.Code, s.log)
			}
			sameXML(t, w.Body.String(), fmt.Sprintf(connect, "14156667778"))
		})
	}
}

func TestForgedRequestIsRefused(t *testing.T) {
	get := func() *http.Request {
		return signed(httptest.NewRequest("GET", "/handleincoming/?"+form, nil), "http://example.com")
	}
	post := func() *http.Request { return signed(postForm("/handleincoming/", form), "http://example.com") }
	query := func(r *http.Request, query string) *http.Request {
		r.URL.RawQuery = query
		return r
	}
	body := func(r *http.Request, form string) *http.Request {
		r.Body = io.NopCloser(strings.NewReader(form))
		return r
	}
	header := func(r *http.Request, name, value string) *http.Request {
		r.Header.Set(name, value)
		return r
	}
	host := func(r *http.Request, host string) *http.Request {
		r.Host = host
		return r
	}
	drop := func(r *http.Request, name string) *http.Request {
		r.Header.Del(name)
		return r
	}
	v2 := drop(post(), "X-Plivo-Signature-V3")
	v2.Header.Set("X-Plivo-Signature-V2", plivo.ComputeSignatureV2(token, "http://example.com/handleincoming/", nonce))
	v2.Header.Set("X-Plivo-Signature-V2-Nonce", nonce)
	changed := strings.Replace(form, "14156667777", "14156667779", 1)
	const fits, twice, lacks, noHost = "does not fit", "a parameter twice", "lacks the header", "is no host"
	for name, test := range map[string]struct {
		request *http.Request
		reason  string
	}{
		"GET changed":           {query(get(), changed), fits},
		"GET added":             {query(get(), form+"&Event=Hangup"), twice},
		"GET added other":       {query(get(), form+"&HangupCause=BUSY"), fits},
		"GET doubled":           {query(get(), form+"&From=14156667779"), twice},
		"GET doubled in front":  {query(get(), "From=14156667779&"+form), twice},
		"GET removed":           {query(get(), strings.Replace(form, "&Event=StartApp", "", 1)), fits},
		"GET after a fragment":  {query(get(), form+"#&HangupCause=BUSY"), fits},
		"POST changed":          {body(post(), changed), fits},
		"POST added":            {body(post(), form+"&HangupCause=BUSY"), fits},
		"POST doubled":          {body(post(), form+"&From=14156667779"), twice},
		"POST doubled in front": {body(post(), "From=14156667779&"+form), twice},
		"POST with query":       {query(post(), "HangupCause=BUSY"), fits},
		"POST moved to query":   {query(body(post(), ""), form), fits},
		"other nonce":           {header(get(), "X-Plivo-Signature-V3-Nonce", "1"), fits},
		"empty nonce":           {header(get(), "X-Plivo-Signature-V3-Nonce", ""), lacks},
		"no nonce":              {drop(get(), "X-Plivo-Signature-V3-Nonce"), lacks},
		"other token":           {header(get(), "X-Plivo-Signature-V3", plivo.ComputeSignatureV3("other", "http://example.com/handleincoming/?"+form, "GET", nonce, nil)), fits},
		"empty token":           {header(get(), "X-Plivo-Signature-V3", plivo.ComputeSignatureV3("", "http://example.com/handleincoming/?"+form, "GET", nonce, nil)), fits},
		"empty signature":       {header(get(), "X-Plivo-Signature-V3", ""), fits},
		"commas":                {header(get(), "X-Plivo-Signature-V3", ",,,"), fits},
		"no signature":          {httptest.NewRequest("GET", "/handleincoming/?"+form, nil), lacks},
		"hangup, no signature":  {httptest.NewRequest("GET", "/handleincoming/?Event=Hangup", nil), lacks},
		"browser, no signature": {httptest.NewRequest("GET", "/handleincoming/", nil), lacks},
		"V2 only":               {v2, lacks},
		"other host":            {host(get(), "example.org"), fits},
		"other scheme":          {header(get(), "X-Forwarded-Proto", "https"), fits},
		"other forwarded host":  {header(get(), "X-Forwarded-Host", "example.org"), fits},
		"other path":            {signed(httptest.NewRequest("GET", "/handleincoming?"+form, nil), "http://example.com/x"), fits},
		"URL in host":           {host(query(get(), changed), "example.com/handleincoming/?"+form+"#"), noHost},
		"URL in forwarded host": {header(query(get(), changed), "X-Forwarded-Host", "example.com/handleincoming/?"+form+"#"), noHost},
		"URL in scheme":         {header(query(get(), changed), "X-Forwarded-Proto", "http://example.com/handleincoming/?"+form+"#"), fits},
		"user in host":          {host(get(), "example.com@example.com"), noHost},
		"host %zz":              {host(get(), "%zz"), noHost},
		"host with port %zz":    {host(get(), "example.com:%zz"), noHost},
		"host [":                {host(get(), "["), noHost},
		"no host":               {host(get(), ""), noHost},
		"host with space":       {header(get(), "X-Forwarded-Host", "a b"), noHost},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.checkSignatures(t, "")
			w := s.send(test.request)
			if w.Code != 403 {
				t.Fatalf("status %d: %s; log: %s", w.Code, w.Body, s.log)
			}
			if !strings.Contains(s.log.String(), test.reason) {
				t.Errorf("log: %swant the reason %q", s.log, test.reason)
			}
			if test.reason == fits && !strings.Contains(s.log.String(), "/handleincoming") {
				t.Errorf("the log does not say which URL was tried: %s", s.log)
			}
			if shown := longDigits.FindString(w.Body.String() + s.log.String()); shown != "" {
				t.Errorf("%s shows in the answer %q or in the log %q", shown, w.Body, s.log)
			}
		})
	}
}

func TestPublicURLIsChecked(t *testing.T) {
	for _, bad := range []string{"mask.example", "/", "ftp://mask.example", "https://", "https:///x", "https://a:b@mask.example", "https://mask.example?x", "https://mask.example/#", "https://mask.example/handleincoming/", "https://%zz", " https://a"} {
		if _, err := NewVerifier(token, bad); err == nil || !strings.Contains(err.Error(), "such as https://example.com") || strings.Contains(err.Error(), "a:b") {
			t.Errorf("PUBLIC_URL %q: %v", bad, err)
		}
	}
}

// A proxy that ends TLS and forwards, as in production, before the whole
// program with signatures on.
func TestSignatureThroughReverseProxy(t *testing.T) {
	p := start(t, sampleConfig, map[string]string{"PLIVO_AUTH_TOKEN": token + "\n"})
	backend, err := url.Parse("http://" + p.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(backend)
		r.SetXForwarded()
	}})
	defer proxy.Close()
	for _, original := range []*http.Request{
		httptest.NewRequest("GET", "/handleincoming/?"+form, nil),
		postForm("/handleincoming/", form),
		postForm("/handleincoming/?a=b", form),
	} {
		for _, base := range []string{proxy.URL, "http://example.com"} {
			r := signed(original, base)
			r.RequestURI, r.URL.Scheme, r.URL.Host, r.Host = "", "https", strings.TrimPrefix(proxy.URL, "https://"), ""
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			response, err := proxy.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(response.Body)
			response.Body.Close()
			r.Body = io.NopCloser(bytes.NewReader(body))
			if base != proxy.URL {
				if response.StatusCode != 403 {
					t.Errorf("%s %s signed for another URL: %s", r.Method, r.URL, response.Status)
				}
				continue
			}
			if response.StatusCode != 200 {
				t.Fatalf("%s %s: %s; log: %s", r.Method, r.URL, response.Status, p.log)
			}
			sameXML(t, string(answer), fmt.Sprintf(connect, "14156667778"))
		}
	}
	if !strings.Contains(p.log.String(), "signatures_checked=true") || strings.Contains(p.log.String(), token) {
		t.Errorf("log: %s", p.log)
	}
}

// Without the token only this machine reaches the server, and the log says so.
func TestWithoutTokenOnlyLocalhostIsServed(t *testing.T) {
	for tokenSet, addresses := range map[string][]string{
		"":    {"address=127.0.0.1:"},
		" \n": {"address=127.0.0.1:"},
		token: {"address=[::]:", "address=0.0.0.0:"}, // the latter on a machine without IPv6
	} {
		p := start(t, sampleConfig, map[string]string{"PLIVO_AUTH_TOKEN": tokenSet})
		p.log.waitFor(t, addresses...)
		if tokenSet != token {
			p.log.waitFor(t, "level=WARN msg=\"PLIVO_AUTH_TOKEN is not set")
		}
	}
}

// ---- The process ----

func TestExitStatusAndOutput(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	write(t, bad, "{\"customerAgentMap\": {\n\"14156667777\": 5}}")
	good := filepath.Join(dir, "good.json")
	write(t, good, sampleConfig)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())

	for name, test := range map[string]struct {
		args           string
		port           string
		status         int
		stdout, stderr string // stderr: part of it; "" for nothing at all
	}{
		"check good":        {"-check -config " + good, "", 0, good + ": ok, 2 pairings\n", ""},
		"check bad":         {"-check -config " + bad, "", 1, "", bad + ":2: the agent must be a phone number in quotes\n"},
		"check ignores env": {"-check -config " + good, "rubbish", 0, good + ": ok, 2 pairings\n", ""},
		"start on bad":      {"-config " + bad, "", 1, "", bad + ":2: the agent must be a phone number in quotes\n"},
		"no such file":      {"-config " + good + "x", "", 1, "", "name another file with -config"},
		"bad PORT":          {"-config " + good, "http", 1, "", "PORT in the environment must be a whole number from 1 to 65535"},
		"PORT 0":            {"-config " + good, "0", 1, "", "PORT in the environment"},
		"PORT 65536":        {"-config " + good, "65536", 1, "", "PORT in the environment"},
		"port in use":       {"-config " + good, takenPort, 1, "", "set PORT to another"},
		"help":              {"-h", "", 0, "", "Usage: number-masking"},
		"unknown flag":      {"-chekc", "", 2, "", "Usage: number-masking"},
		"argument":          {"config.json", "", 2, "", "use -config"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr logBuffer
			env := func(key string) string { return map[string]string{"PORT": test.port}[key] }
			status := run(t.Context(), strings.Fields(test.args), env, &stdout, &stderr)
			if status != test.status || stdout.String() != test.stdout {
				t.Errorf("exit status %d, output %q; want %d, %q", status, &stdout, test.status, test.stdout)
			}
			if !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.String() != "" {
				t.Errorf("error output %q, want %q", &stderr, test.stderr)
			}
		})
	}
}

func TestTwoAtOnceStartAnswerAndStop(t *testing.T) {
	one := start(t, sampleConfig, nil)
	other := start(t, `{"customerAgentMap": {"14156667777": "14156660001"}}`, nil)
	sameXML(t, one.get(t, "/handleincoming/?From=14156667777&To="+plivoNumber), fmt.Sprintf(connect, "14156667778"))
	sameXML(t, other.get(t, "/handleincoming/?From=14156667777&To="+plivoNumber), fmt.Sprintf(connect, "14156660001"))
	for _, p := range []*process{one, other} {
		if status := p.stop(t); status != 0 {
			t.Errorf("exit status %d", status)
		}
		if conn, err := net.Dial("tcp", p.addr); err == nil {
			conn.Close()
			t.Error("still listens after it stopped")
		}
	}
	if !strings.Contains(one.log.String(), "pairings=2") {
		t.Errorf("log at start: %s", one.log)
	}
}

func TestRequestInFlightIsAnsweredDuringShutdown(t *testing.T) {
	p := start(t, sampleConfig, nil)
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	form := "From=14156667777&To=" + plivoNumber
	fmt.Fprintf(conn, "POST /handleincoming/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", len(form))
	reader := bufio.NewReader(conn)
	if line, err := reader.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("the request was not begun: %q, %v", line, err)
	}
	_, _ = reader.ReadString('\n')
	p.cancel()
	p.log.waitFor(t, "stopping")
	fmt.Fprint(conn, form)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	sameXML(t, string(body), fmt.Sprintf(connect, "14156667778"))
	if status := p.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestSignalsStopTheBinary(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p, command := startBinary(t, "config.json")
		if err := command.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", signal, err, p.log)
		}
	}
}

// startBinary starts the real program, for what only a process has: signals.
func startBinary(t testing.TB, config string) (*process, *exec.Cmd) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "number-masking")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for range 10 {
		port := freePort(t)
		p := &process{addr: "127.0.0.1:" + port, log: new(logBuffer)}
		command := exec.CommandContext(t.Context(), binary, "-config", config)
		command.Env = append(os.Environ(), "PORT="+port, "PLIVO_AUTH_TOKEN=")
		command.Stderr = p.log
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		if p.log.waitFor(t, "msg=listening", "set PORT to another") == "msg=listening" {
			return p, command
		}
	}
	t.Fatal("found no free port")
	return nil, nil
}

// ---- Edits of config.json while calls come in ----

func TestEditsTakeEffectWhileCallsComeIn(t *testing.T) {
	t.Parallel()
	// As Kubernetes mounts a ConfigMap: config.json leads through ..data,
	// which is switched from one folder to the next.
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	inDir := func(name string) string { return filepath.Join(dir, name) }
	pairedWith := func(agent string) string {
		return fmt.Sprintf("{\n\"customerAgentMap\": {\n\"14156667777\": \"%s\",\n\"14156667779\": \"14156667780\"\n}}\n", agent)
	}
	folder := func(name, agent string) {
		if err := os.Mkdir(inDir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(inDir(name), "config.json"), pairedWith(agent))
	}
	folder("..v1", "14156660001")
	folder("..v2", "14156660002")
	link := func(target, name string) {
		if err := errors.Join(os.Symlink(target, inDir("..new")), os.Rename(inDir("..new"), inDir(name))); err != nil {
			t.Fatal(err)
		}
	}
	link("..v1", "..data")
	link(filepath.Join("..data", "config.json"), "config.json")
	p := startOn(t, path, nil)
	stopCalls := keepCalling(t, p)

	p.waitForAgent(t, "14156660001")
	link("..v2", "..data")
	p.waitForAgent(t, "14156660002")

	write(t, path, pairedWith("14156660003")) // in place, through the links
	p.waitForAgent(t, "14156660003")

	write(t, inDir("new"), pairedWith("14156660004"))
	rename(t, inDir("new"), path)
	p.waitForAgent(t, "14156660004")

	whole := pairedWith("14156660005") // in two halves, the first for long enough to be seen
	write(t, path, whole[:60])
	p.log.waitFor(t, "config.json:4:6: unexpected end of JSON input")
	p.waitForAgent(t, "14156660004")
	appendTo(t, path, whole[60:])
	p.waitForAgent(t, "14156660005")

	write(t, path, "{\n\"customerAgentMap\": {\n\"14156667777\": \"14156660006\",\n\"14156667779\": \"14156660006\"\n}}\n") // ambiguous
	p.log.waitFor(t, "config.json:4: the agent is already the agent of the pairing in line 3")
	p.waitForAgent(t, "14156660005")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil { // to be read again, with nothing new in it
		t.Fatal(err)
	}

	rename(t, path, inDir("away"))
	p.log.waitFor(t, "put it there, or name another file with -config")
	p.waitForAgent(t, "14156660005")
	write(t, path, pairedWith("14156660007"))
	p.waitForAgent(t, "14156660007")

	write(t, path, "")
	p.log.waitFor(t, "config.json:1:1: the file is empty")
	p.waitForAgent(t, "14156660007")

	write(t, path, `{"app": {"port": 1}, "customerAgentMap": {"14156667779": "14156667780"}}`) // one pairing removed
	p.waitForAgent(t, "")
	sameXML(t, p.get(t, "/handleincoming/?From=14156660007&To="+plivoNumber), rejected)
	sameXML(t, p.get(t, "/handleincoming/?From=14156667779&To="+plivoNumber), fmt.Sprintf(connect, "14156667780"))
	p.log.waitFor(t, "app.port has changed")

	if calls := stopCalls(); calls == 0 {
		t.Error("no call was made meanwhile")
	}
	for _, once := range []string{"already the agent of the pairing", "put it there, or name", "the file is empty"} {
		if n := strings.Count(p.log.String(), once); n != 1 {
			t.Errorf("%q is logged %d times", once, n)
		}
	}
}

// waitForAgent calls as the customer 14156667777 until that rings agent, or is
// rejected if agent is "".
func (p *process) waitForAgent(t testing.TB, agent string) {
	t.Helper()
	want := rejected
	if agent != "" {
		want = fmt.Sprintf(connect, agent)
	}
	for end := time.Now().Add(patience); ; {
		got := p.get(t, "/handleincoming/?From=14156667777&To="+plivoNumber)
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still answers %s, not %s; log:\n%s", got, want, p.log.withoutCalls())
		}
	}
}

// keepCalling makes calls until the function that it returns is called, which
// returns how many; each must be answered with XML.
func keepCalling(t testing.TB, p *process) (stop func() int) {
	quit, made := make(chan struct{}), make(chan int)
	go func() {
		calls := 0
		defer func() { made <- calls }()
		for {
			select {
			case <-quit:
				return
			default:
			}
			response, err := http.Get("http://" + p.addr + "/handleincoming/?From=14156667777&To=" + plivoNumber)
			if err != nil {
				t.Errorf("call %d: %v", calls, err)
				return
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if _, notXML := parseXML(string(body)); err != nil || response.StatusCode != 200 || notXML != nil {
				t.Errorf("call %d: %s, %v, %v", calls, response.Status, err, notXML)
				return
			}
			calls++
		}
	}()
	stop = sync.OnceValue(func() int {
		close(quit)
		return <-made
	})
	t.Cleanup(func() { stop() })
	return stop
}

// A SIGHUP is obeyed by itself: this edit is one that polling cannot see.
func TestHangupSignalLoadsAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, `{"customerAgentMap": {"14156667777": "14156660001"}}`)
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	p, command := startBinary(t, path)
	write(t, path, `{"customerAgentMap": {"14156667777": "14156660002"}}`)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.waitForAgent(t, "14156660002")
	write(t, path, "{")
	if err := errors.Join(os.Chtimes(path, past, past), command.Process.Signal(syscall.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	p.log.waitFor(t, "config.json:1:1: unexpected end of JSON input")
	p.waitForAgent(t, "14156660002")
	if err := command.Process.Signal(syscall.SIGHUP); err != nil { // says it again to who asks again
		t.Fatal(err)
	}
	p.log.waitForCount(t, "config.json:1:1: unexpected end of JSON input", 2)
}

// ---- Nothing private gets out ----

// Every kind of request and of bad edit, each with numbers of its own, against
// the whole program with and without signatures; then all that was logged and
// answered is searched for any number that may not be there.
func TestNothingPrivateGetsOut(t *testing.T) {
	t.Parallel()
	fresh := 14157000000
	secret := map[string]bool{} // every number that was sent in or stood in a file
	next := func() string {
		fresh += 7919
		digits := strconv.Itoa(fresh)
		secret[digits] = true
		return digits
	}
	var pairs []string
	var parties []string
	for range 20 {
		customer, agent := next(), next()
		parties = append(parties, customer, agent)
		pairs = append(pairs, fmt.Sprintf("%q: %q", customer, agent))
	}
	good := "{\"customerAgentMap\": {\n" + strings.Join(pairs, ",\n") + "\n}}"
	for _, env := range []map[string]string{nil, {"PLIVO_AUTH_TOKEN": token}} {
		p := start(t, good, env)
		base := "http://" + p.addr
		search := func(where, text string, allowed ...string) {
			t.Helper()
			for _, shown := range longDigits.FindAllString(squeeze(text), -1) {
				for digits := range secret {
					if strings.Contains(shown, digits[4:]) && !slices.Contains(allowed, shown) {
						t.Errorf("%s shows %s: %s", where, digits, text)
					}
				}
			}
			if strings.Contains(text, token) {
				t.Errorf("%s shows the token: %s", where, text)
			}
		}
		send := func(r *http.Request, allowed ...string) {
			t.Helper()
			r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", p.addr
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode >= 500 {
				t.Errorf("%s %s: %s, %v", r.Method, r.URL, response.Status, err)
			}
			search("the answer", string(body)+fmt.Sprint(response.Header), allowed...)
		}
		get := func(query string) *http.Request {
			r := httptest.NewRequest("GET", "/handleincoming/?"+query, nil)
			r.Host = p.addr
			return r
		}
		post := func(form string) *http.Request {
			r := postForm("/handleincoming/", form)
			r.Host = p.addr
			return r
		}
		for _, from := range append(slices.Clone(parties), next(), "anonymous", "", "sip:"+next()+"@example.com", next()+next(), "0"+next(), next()+"x", "+"+next()[:6]) {
			for _, to := range []string{next(), next() + "x", "sip:" + next() + "@a", "", parties[0], from} {
				query := url.Values{"From": {from}, "To": {to}, "CallUUID": {next()}, "ForwardedFrom": {next()}}.Encode()
				// An answer may hold the called number and the one dialled.
				allowed := []string{to}
				if i := slices.Index(parties, from); i >= 0 {
					allowed = append(allowed, parties[i^1])
				}
				for _, r := range []*http.Request{get(query), post(query)} {
					if env != nil {
						signed(r, base)
					}
					send(r, allowed...)
				}
				send(get(query), allowed...) // unsigned
			}
		}
		for _, query := range []string{
			"From=" + next(), "To=" + next(), "From=%zz" + next() + "&To=" + next(), next(), next() + "=" + next(),
			"From=" + next() + "&From=" + next() + "&To=" + next(), "From=" + next() + ";To=" + next(),
			"Event=Hangup&HangupCause=" + next() + "&Duration=" + next() + "&CallUUID=%2B1+(415)+" + next()[4:] + "&From=" + next() + "&To=" + next(),
			"HangupCause=" + strings.Repeat("1%20("+next()+")+", 50),
		} {
			send(signed(get(query), base))
			send(signed(post(query), base))
			send(get(query))
		}
		for _, host := range []string{next(), next() + ".example.com", "%" + next(), next() + ":" + next()[:4]} {
			query := "From=" + parties[0] + "&To=" + plivoNumber
			bad := get(query)
			bad.Header.Set("X-Forwarded-Host", host)
			bad.Header.Set("X-Forwarded-Proto", next())
			bad.Header.Set("X-Plivo-Signature-V3", next())
			bad.Header.Set("X-Plivo-Signature-V3-Nonce", next())
			bad.Header.Set("User-Agent", next())
			send(bad, plivoNumber, parties[1])
		}
		for _, path := range []string{"/" + next(), "/handleincoming/" + next(), "/healthz?" + next()} {
			send(httptest.NewRequest("GET", path, nil))
		}
		send(httptest.NewRequest("M"+next(), "/handleincoming/?From="+next(), strings.NewReader(next())))
		asJSON := httptest.NewRequest("POST", "/handleincoming/", strings.NewReader(`{"From": "`+next()+`"}`))
		asJSON.Header.Set("Content-Type", "application/"+next())
		send(asJSON)
		send(post("From=" + next() + strings.Repeat("x", 64<<10)))

		for i, edit := range []string{
			`{"customerAgentMap": {"` + next() + `": "` + next()[:9],
			`{"customerAgentMap": {"` + next() + `": ` + next() + `, "` + next() + `": "` + next() + `x", "0` + next() + `": "` + next() + `"}}`,
			`{"` + next() + `": "` + next() + `", "app": {"` + next() + `": 1, "port": ` + next() + `}, "+1 (415) ` + next()[4:] + `": 0}`,
			`{"customerAgentMap": {` + pairs[0] + `, ` + pairs[0] + `, "` + parties[1] + `": "` + parties[3] + `", "` + parties[4] + `": "` + parties[4] + `"}}`,
			`{"customerAgentMap": ` + next() + `, "app": "` + next() + `"} ` + next(),
			next(),
			good + next(),
		} {
			write(t, p.path, fmt.Sprintf("%*s%s", i, "", edit))
			p.log.waitForCount(t, "config not loaded", i+1)
		}
		write(t, p.path, `{"customerAgentMap": {}}`)
		p.log.waitFor(t, "msg=\"config loaded\" pairings=0")
		p.stop(t)
		search("the log", p.log.String())
	}
}

// squeeze takes out of a log what is between the digits of a number that was
// written as people write it.
func squeeze(text string) string {
	return regexp.MustCompile(`([0-9])[ .()-]+([0-9])`).ReplaceAllString(text, "$1$2")
}

// ---- It keeps answering ----

func TestSlowHugeAndBrokenRequests(t *testing.T) {
	t.Parallel()
	p := start(t, sampleConfig, nil)
	raw := func(request string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, request) // the server may close before it has read all
		return conn
	}
	good := func() {
		t.Helper()
		sameXML(t, p.get(t, "/handleincoming/?From=14156667777&To="+plivoNumber), fmt.Sprintf(connect, "14156667778"))
	}
	const post = "POST /handleincoming/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	var slow []net.Conn
	for i := range 300 {
		slow = append(slow, raw([]string{"", "GET /handleinc", "GET /handleincoming/ HTTP/1.1\r\nHost: x\r\nA: ", post + "Content-Length: 100\r\n\r\nFrom=1415"}[i%4]))
	}
	for range 20 {
		good()
	}
	for name, test := range map[string]struct{ request, status string }{
		"rubbish":             {"\x00\xff\r\n\r\n", "400"},
		"no method":           {"\r\n\r\n\r\n", "400"},
		"two hosts":           {"GET /handleincoming/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		"no host":             {"GET /handleincoming/ HTTP/1.1\r\n\r\n", "400"},
		"host %zz":            {"GET /handleincoming/?From=14156667777&To=14155550100 HTTP/1.1\r\nHost: %zz\r\n\r\n", "200"},
		"huge header":         {"GET /handleincoming/ HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 40<<10) + "\r\n\r\n", "431"},
		"huge URL":            {"GET /handleincoming/?" + strings.Repeat("a", 40<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "431"},
		"huge form":           {post + "Content-Length: 1000000000\r\n\r\n" + strings.Repeat("a", 65<<10), "413"},
		"huge chunk":          {post + "Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + strings.Repeat("a", 65<<10), "413"},
		"broken chunk":        {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		"negative length":     {post + "Content-Length: -1\r\n\r\n", "400"},
		"asks for everything": {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
	} {
		response, err := http.ReadResponse(bufio.NewReader(raw(test.request)), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.HasPrefix(response.Status, test.status) {
			t.Errorf("%s: %s, want %s", name, response.Status, test.status)
		}
	}
	good()
	for i, conn := range slow { // the server's time-outs end each of them
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err != nil {
			t.Fatalf("slow client %d: %v, %q", i, err, answer)
		}
	}
	good()
	if strings.Contains(p.log.String(), "panic") {
		t.Errorf("log: %s", p.log.withoutCalls())
	}
}

// ---- Fuzz targets ----

func FuzzNumber(f *testing.F) {
	for _, seed := range []string{"14156667777", "+1 (415) 666-7777", "0123", "+", "1234567890123456", "sip:a@b", "１２３４５６７"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseNumber(text)
		digits := regexp.MustCompile("[^0-9]").ReplaceAllString(text, "")
		if err != nil {
			if n != (Number{}) || longDigits.MatchString(err.Error()) {
				t.Errorf("%q: %v, %v", text, n, err)
			}
			return
		}
		if n.Digits() != digits || len(digits) < 7 || len(digits) > 15 || digits[0] == '0' {
			t.Errorf("%q is read as %q", text, n.Digits())
		}
		if again, err := ParseNumber(n.Digits()); again != n || err != nil {
			t.Errorf("%q does not read back: %v", n.Digits(), err)
		}
		if masked := strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]; fmt.Sprintf("%d", n) != masked || n.String() != masked {
			t.Errorf("%q prints as %d", digits, n)
		}
	})
}

var problemLine = regexp.MustCompile(`^config\.json:([0-9]+)(:[0-9]+)?: .|^config\.json: [0-9]+ more problems like these$`)

func FuzzConfig(f *testing.F) {
	for _, seed := range []string{sampleConfig, `{"app": {"port": 1}, "customerAgentMap": {"14156667777": "14156667777", "1": 2}}`,
		`{"plivoNumbers": {"14155550101": {"14156660003": "14156660001"}, "14155550102": {"14156660004": "14156660001"}}, "call": {"ringTimeout": 1, "connectingMessage": "a"}}`,
		"{\n\"customerAgentMap\": {\"14156667777\": \"14156667778\",\n}}", `{"x": [{"y": null}], "app": 1e9}`, "", "[]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := ParseConfig("config.json", data)
		if err != nil {
			for problem := range strings.SplitSeq(err.Error(), "\n") {
				match := problemLine.FindStringSubmatch(problem)
				if match == nil {
					t.Fatalf("not a problem with its line: %q", problem)
				}
				if line, _ := strconv.Atoi(match[1]); line > 1+bytes.Count(data, []byte("\n")) {
					t.Errorf("there is no such line: %q", problem)
				}
				if longDigits.MatchString(problem) {
					t.Errorf("shows a number: %q", problem)
				}
			}
			return
		}
		checkUnambiguous(t, config)
	})
}

// checkUnambiguous checks that each party leads to one other, which leads back.
func checkUnambiguous(t testing.TB, config *Config) {
	t.Helper()
	if config.Port < 1 || config.Port > 65535 {
		t.Errorf("port %d", config.Port)
	}
	for _, s := range config.sides {
		peer, role, ok := config.Peer(s.caller, s.called)
		back, peerRole, backOK := config.Peer(peer, s.called)
		if !ok || !backOK || back != s.caller || peer == s.caller || role == peerRole || peer == s.called {
			t.Errorf("%s %s leads to %s, which is %s to %s", role, s.caller.Digits(), peer.Digits(), peerRole, back.Digits())
		}
	}
}

func FuzzAnswer(f *testing.F) {
	config := parse(f, `{"customerAgentMap": {"14156667777": "14156667778"}, "plivoNumbers": {"14155550100": {"14156667777": "14156667779"}},
		"call": {"unknownCallerMessage": "<?>", "connectingMessage": "&", "ringTimeout": 30, "timeLimit": 60}}`)
	f.Add(true, "From=14156667777&To=14155550100", "", "example.com")
	f.Add(true, "From=14156667777&To=14155550101", "", "example.com")
	f.Add(false, "", "From=14156667778&To=%2B14155550100&CallUUID=1", "%zz")
	f.Add(false, "a=b", "From=14156667777&To=14156667778", "")
	f.Add(true, "Event=Hangup&HangupCause=X&Duration=14156667777", "", "a/b")
	f.Add(true, "HangupCause=X%0066777", "", "a%1fb")
	f.Add(true, "HangupCause=X\x0066777", "", "a\x1fb")
	f.Fuzz(func(t *testing.T, get bool, query, form, host string) {
		r := postForm("/handleincoming/", form)
		if get {
			r = httptest.NewRequest("GET", "/handleincoming/", nil)
		}
		r.URL.RawQuery, r.Host = query, host
		unsigned := r.Clone(t.Context())
		unsigned.Body = io.NopCloser(strings.NewReader(form))
		s := newServer(t)
		s.checkSignatures(t, "")
		if w := s.send(unsigned); w.Code != 403 && w.Code != 400 && w.Code != 413 {
			t.Errorf("without a signature: status %d", w.Code)
		}
		s = newServer(t)
		s.handler.config = func() *Config { return config }
		w := s.send(r)
		called, _ := ParseNumber(r.Form.Get("To"))
		caller, _ := ParseNumber(r.Form.Get("From"))
		peer, _, _ := s.handler.config().Peer(caller, called)
		checkAnswer(t, w, called, peer)
		log := regexp.MustCompile(`(?m)(time|took)=\S+|[0-9a-fA-F-]{36}`).ReplaceAllString(s.log.String(), "")
		if shown := longDigits.FindString(log + w.Header().Get("Location")); shown != "" {
			t.Errorf("the log shows %s: %s", shown, log)
		}
	})
}

// checkAnswer checks what must hold of every answer: a Dial has the Plivo
// number that was called as its callerId and one number to dial, which is the
// caller's peer, and no other number stands anywhere.
func checkAnswer(t testing.TB, w *httptest.ResponseRecorder, called, peer Number) {
	t.Helper()
	body := w.Body.String()
	if w.Code != 200 {
		if w.Code != 400 && w.Code != 413 || longDigits.MatchString(body) {
			t.Errorf("status %d: %s", w.Code, body)
		}
		return
	}
	response, err := parseXML(body)
	if err != nil || response.XMLName.Local != "Response" {
		t.Fatalf("%v: %s", err, body)
	}
	dials := 0
	for _, child := range response.Children {
		if child.XMLName.Local != "Dial" {
			continue
		}
		dials++
		var callerIDs, numbers []string
		for _, attr := range child.Attrs {
			if attr.Name.Local == "callerId" {
				callerIDs = append(callerIDs, attr.Value)
			}
		}
		for _, number := range child.Children {
			numbers = append(numbers, number.XMLName.Local+number.Text)
		}
		if !slices.Equal(callerIDs, []string{called.Digits()}) || !slices.Equal(numbers, []string{"Number" + peer.Digits()}) || peer == (Number{}) || called == peer {
			t.Errorf("called %s, to dial %s: %s", called.Digits(), peer.Digits(), body)
		}
	}
	if shown := longDigits.FindAllString(body, -1); dials > 1 || len(shown) != 2*dials {
		t.Errorf("numbers that have no place in an answer: %s", body)
	}
}

// ---- Benchmarks ----

// The request is as Plivo sends it, by GET so that wrk can send the same.
const (
	benchQuery  = "CallStatus=ringing&CallUUID=97ceeb52-58b6-11e1-86da-77300b68f8bb&Direction=inbound&Event=StartApp&From=14156667777&To=" + plivoNumber
	benchAnswer = `<Response><Dial callerId="` + plivoNumber + `"><Number>14156667778</Number></Dial></Response>`
)

// Through the full handler, the log line included, without a connection.
func BenchmarkAnswer(b *testing.B) {
	for _, name := range []string{"unsigned", "signed"} {
		b.Run(name, func(b *testing.B) {
			h := benchHandler(b, name)
			r := signed(httptest.NewRequest("GET", "/handleincoming/?"+benchQuery, nil), "http://example.com")
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r.Clone(b.Context()))
				if w.Code != 200 || w.Body.Len() != len(benchAnswer) {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

// Over keep-alive connections on loopback, beside a bare handler that writes
// the same bytes.
func BenchmarkLoopback(b *testing.B) {
	for _, name := range []string{"bare", "unsigned", "signed"} {
		b.Run(name, func(b *testing.B) {
			h := benchHandler(b, name)
			server := httptest.NewServer(h)
			defer server.Close()
			r := signed(httptest.NewRequest("GET", server.URL+"/handleincoming/?"+benchQuery, nil), server.URL)
			var request bytes.Buffer
			if err := r.Write(&request); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				answer := make([]byte, 4096)
				for pb.Next() {
					if _, err := conn.Write(request.Bytes()); err != nil {
						b.Error(err)
						return
					}
					if n, err := conn.Read(answer); err != nil || !bytes.HasSuffix(answer[:n], []byte(benchAnswer)) {
						b.Errorf("%v: %s", err, answer[:n])
						return
					}
				}
			})
		})
	}
}

func benchHandler(b *testing.B, name string) http.Handler {
	if name == "bare" {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			_, _ = io.WriteString(w, benchAnswer)
		})
	}
	log, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	config := parse(b, sampleConfig)
	h := &Handler{config: func() *Config { return config }, log: slog.New(slog.NewTextHandler(log, nil))}
	if name == "signed" {
		if h.verifier, err = NewVerifier(token, ""); err != nil {
			b.Fatal(err)
		}
	}
	return h
}

// A million pairings: a file of about 33 MB.
func BenchmarkMillion(b *testing.B) {
	data := millionPairings()
	config, err := ParseConfig("config.json", data)
	if err != nil || config.Pairings() != 1_000_000 {
		b.Fatal(config, err)
	}
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseConfig("config.json", data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		callers := make([]Number, 0, 1000)
		for i := range cap(callers) {
			callers = append(callers, config.sides[i*1999].caller)
		}
		called := number(b, plivoNumber)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, _, ok := config.Peer(callers[i%len(callers)], called); !ok {
				b.Fatal("not found")
			}
		}
	})
}

func millionPairings() []byte {
	data := []byte("{\n\"customerAgentMap\": {\n")
	for i := range 1_000_000 {
		data = fmt.Appendf(data, "\"1415%07d\": \"1628%07d\",\n", i, i)
	}
	return append(data[:len(data)-2], "\n}}\n"...)
}

// ---- The README ----

// The README's examples of config.json are good, but for the one whose
// problems it lists.
func TestReadmeConfigs(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(examples) < 2 {
		t.Errorf("%d examples", len(examples))
	}
	for _, example := range examples {
		parse(t, example[1])
	}
	bad := regexp.MustCompile("(?s)\\$ cat bad.json\n(.*?)\\$ [^\n]*\n(.*?)\n```").FindSubmatch(readme)
	if bad == nil {
		t.Fatal("no bad example")
	}
	if _, err := ParseConfig("bad.json", bad[1]); err == nil || err.Error() != string(bad[2]) {
		t.Errorf("message:\n%v\nREADME:\n%s", err, bad[2])
	}
}

// Every curl line of the README, run as written but for the port, answers what
// the README shows below it.
func TestReadmeCurlLines(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, string(shipped), nil)
	tried := 0
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, want, _ := strings.Cut(part, "\n")
			if !strings.HasPrefix(command, "curl ") || !strings.Contains(command, "localhost:5000") {
				continue
			}
			tried++
			out, err := exec.Command("sh", "-c", strings.ReplaceAll(command, "localhost:5000", p.addr)).Output()
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			if got := strings.TrimSpace(string(out)); got != strings.TrimSpace(want) {
				t.Errorf("%s\nanswers: %s\nREADME:  %s", command, got, want)
			}
		}
	}
	if tried < 4 {
		t.Errorf("found only %d curl lines in the README", tried)
	}
}

// ---- What the tests share ----

const (
	plivoNumber  = "14155550100"
	sampleConfig = `{"customerAgentMap": {"14156667777": "14156667778", "14156667779": "14156667780"}}`
)

var longDigits = regexp.MustCompile(`[0-9]{7,}`)

func number(t testing.TB, text string) Number {
	t.Helper()
	n, err := ParseNumber(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func parse(t testing.TB, text string) *Config {
	t.Helper()
	config, err := ParseConfig("config.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func postForm(path, form string) *http.Request {
	r := httptest.NewRequest("POST", path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// A testServer is the handler with sampleConfig, and its log.
type testServer struct {
	handler *Handler
	log     *logBuffer
}

func newServer(t testing.TB) *testServer {
	config := parse(t, sampleConfig)
	log := new(logBuffer)
	return &testServer{&Handler{config: func() *Config { return config }, log: slog.New(slog.NewTextHandler(log, nil))}, log}
}

func (s *testServer) checkSignatures(t testing.TB, publicURL string) {
	verifier, err := NewVerifier(token, publicURL)
	if err != nil {
		t.Fatal(err)
	}
	s.handler.verifier = verifier
}

func (s *testServer) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// An element is any XML element, for comparing documents by what they mean.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []element  `xml:",any"`
}

func parseXML(text string) (element, error) {
	var e element
	decoder := xml.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&e); err != nil {
		return e, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return e, fmt.Errorf("more than one document: %v", err)
	}
	return e, nil
}

func sameXML(t testing.TB, got, want string) {
	t.Helper()
	g, err := parseXML(got)
	if err != nil {
		t.Fatalf("the answer is no XML: %v\n%s", err, got)
	}
	w, err := parseXML(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("answer %s\nwant   %s", got, want)
	}
}

// A process is the whole program, started through run.
type process struct {
	addr   string
	log    *logBuffer
	path   string // of its config file
	cancel func()
	exited chan int
}

func start(t testing.TB, config string, env map[string]string) *process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, config)
	return startOn(t, path, env)
}

func startOn(t testing.TB, path string, env map[string]string) *process {
	t.Helper()
	for range 10 { // another program may take the free port first
		port := freePort(t)
		ctx, cancel := context.WithCancel(context.Background())
		p := &process{"127.0.0.1:" + port, new(logBuffer), path, cancel, make(chan int, 1)}
		getenv := func(key string) string {
			if key == "PORT" {
				return port
			}
			return env[key]
		}
		go func() { p.exited <- run(ctx, []string{"-config", path}, getenv, io.Discard, p.log) }()
		if p.log.waitFor(t, "msg=listening", "set PORT to another") == "msg=listening" {
			t.Cleanup(func() { p.stop(t) })
			return p
		}
		cancel()
	}
	t.Fatal("found no free port")
	return nil
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

func (p *process) stop(t testing.TB) int {
	t.Helper()
	p.cancel()
	select {
	case status := <-p.exited:
		p.exited <- status // for whoever asks again
		return status
	case <-time.After(patience):
		t.Fatalf("does not stop; log:\n%s", p.log)
		return -1
	}
}

func (p *process) get(t testing.TB, path string) string {
	t.Helper()
	response, err := http.Get("http://" + p.addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("GET %s: %s, %v: %s", path, response.Status, err, body)
	}
	return string(body)
}

// patience bounds waiting for what must happen; nothing waits for it to pass.
const patience = 60 * time.Second

// A logBuffer takes a log and lets a test wait for a text in it.
type logBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed at the next write; nil if nobody waits
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grown != nil {
		close(b.grown)
		b.grown = nil
	}
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// withoutCalls leaves out the lines of which a test may cause thousands.
func (b *logBuffer) withoutCalls() string {
	return regexp.MustCompile(`(?m)^.*msg="call .*\n`).ReplaceAllString(b.String(), "")
}

// waitFor returns the first of the texts that the log holds.
func (b *logBuffer) waitFor(t testing.TB, texts ...string) string {
	t.Helper()
	return b.waitForCount(t, texts[0], 1, texts[1:]...)
}

// waitForCount waits until the log holds text, or one of the others, n times.
func (b *logBuffer) waitForCount(t testing.TB, text string, n int, others ...string) string {
	t.Helper()
	texts := append([]string{text}, others...)
	timeout := time.After(patience)
	for {
		b.mu.Lock()
		for _, text := range texts {
			if strings.Count(b.text.String(), text) >= n {
				b.mu.Unlock()
				return text
			}
		}
		if b.grown == nil {
			b.grown = make(chan struct{})
		}
		grown := b.grown
		b.mu.Unlock()
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("the log never says %q:\n%s", texts, b.withoutCalls())
		}
	}
}
