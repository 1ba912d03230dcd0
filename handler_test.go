package main

import (
	"bufio"
	"bytes"
	"cmp"
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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plivo/plivo-go/v7"
)

// Sections: phone numbers, config.json, answers, signatures, the process, its log, edits of config.json,
// hostile requests, fuzz targets, benchmarks, the README, and what they share. Whatever is logged in any
// test is searched for phone numbers when the test ends: see noNumbers.

// ---- Phone numbers ----

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]string{ // digits, or part of the error
		"14156667777":       "14156667777",
		"+1 (415) 666-7777": "14156667777",
		"1-415-666-7777":    "14156667777",
		"+1.415.666.7777":   "14156667777",
		" 14156667777":      "14156667777", // a + in an unescaped query arrives as a space
		"(+49) 30 123456":   "4930123456",
		"33.1.42.68.53.00":  "33142685300",
		"2345678":           "2345678",
		"999999999999999":   "999999999999999",

		"":                          "it has 0 digits;",
		"123456":                    "it has 6 digits;",
		"1":                         "it has 1 digit;",
		"1234567890123456":          "it has 16 digits;",
		strings.Repeat("9", 21):     "it has 21 digits;",
		"1234567":                   "it begins with 1 and has 7 digits; numbers of North America have 11",
		"1415666777":                "it begins with 1 and has 10 digits",
		"+1 415 666 7777 8":         "it begins with 1 and has 12 digits",
		"04156667777":               "begins with 0",
		"0014156667777":             "begins with 0",
		"1+4156667777":              `the character "+"; write digits only, with or without + in front`,
		"++14156667777":             `the character "+"; write digits only, with or without + in front`,
		"+44 (0)20 7946 0018":       "0 in parentheses",
		"+44 ( 0 ) 20 7946 0018":    "0 in parentheses",
		"+44 (020) 7946 0018":       "0 in parentheses",
		"4930901820.0":              "it ends in .0, as spreadsheets write numbers",
		"4930901820.00 ":            "it ends in .0",
		"14156667777.0":             "it ends in .0",
		"+49.30.901820.0":           "it ends in .0",
		"1.41567E+10":               "a spreadsheet has shortened it; format the column as text",
		"+1,41567e10 ":              "a spreadsheet has shortened it",
		"4E9":                       "a spreadsheet has shortened it",
		"1415666777x":               `the character "x"; write digits only, with or without + in front`,
		`1415666777"`:               `the character """;`,
		"1415\u00a06667777":         "the character U+00A0;",
		"1415\u200b6667777":         "the character U+200B;",
		"1415\t6667777":             "the character U+0009;",
		"1415/6667777":              `the character "/"`,
		"1415–666–7777":             `the character "–"`,
		"１４１５６６６７７７７":               `the character "１"`,
		"1415666\xff7777":           "the character \"\uFFFD\"",
		"sip:14156667777@b.example": `the character "s"`,
	} {
		n, err := ParseNumber(text)
		if err == nil && n.Digits() != want {
			t.Errorf("ParseNumber(%q) = %q; want %q", text, n.Digits(), want)
		}
		if err != nil && (!strings.Contains(err.Error(), want) || n != Number{}) {
			t.Errorf("ParseNumber(%q) = %v, %v; want %q", text, n, err, want)
		}
		noNumbers(t, "the error", fmt.Sprint(err))
	}
}

func TestNumberPrintsMaskedHoweverItIsPrinted(t *testing.T) {
	n := number(t, "14156667777")
	type holder struct {
		Open   Number
		hidden Number
		ptr    *Number
		list   []Number
		keyed  Lookup
	}
	h := holder{n, n, &n, []Number{n}, Lookup{n: {Peer: n}}}
	var printed strings.Builder
	for verb := range strings.FieldsSeq("%v %+v %#v %s %q %d %x %X %o %b %e %t %U %20v") {
		fmt.Fprintf(&printed, verb+" "+verb+" "+verb+" "+verb+"\n", n, &n, h, &h)
	}
	slog.New(slog.NewTextHandler(&printed, nil)).Info("text", "n", n, "h", h)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("json", "n", n, "h", h)
	fmt.Fprintln(&printed, fmt.Errorf("wrapped: %v", n), n)
	for _, form := range []string{"%d", "%x", "%X", "%o", "%b"} {
		if shown := fmt.Sprintf(form, int64(14156667777)); strings.Contains(printed.String(), shown) {
			t.Errorf("the number shows as %s in:\n%s", shown, printed.String())
		}
	}
	if got := n.String() + " " + (Number{}).String() + " " + (Number{}).Digits(); got != "*******7777 none " {
		t.Errorf("prints as %q", got)
	}
}

// ---- config.json ----

func TestGoodConfigs(t *testing.T) {
	shipped, err := os.ReadFile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text           string
		port, pairings int
	}{
		{string(shipped), 5000, 3},
		{`{"customerAgentMap": {}}`, 5000, 0},
		{"\uFEFF{\r\n\"app\": {\"port\": 65535},\r\n\"customerAgentMap\": {}}\r\n", 65535, 0},
		{`{"app": {}, "call": {}, "plivoNumbers": {"14155550100": {}}}`, 5000, 0},
		{`{"plivoNumbers": {
			"14155550100": {"14156667777": "14156667778"},
			"14155550101": {"14156667777": "14156667778"}
		}}`, 5000, 2},
		{`{
			"app": {"port": 1},
			"call": {"language": "en-GB-WLS", "connectingMessage": "", "noAnswerMessage": "x"},
			"plivoNumbers": {"14155550100": {"14156667777": "14156667778"}},
			"customerAgentMap": {"14156667779": "14156667778"}
		}`, 1, 2},
	} {
		if config := parse(t, test.text); config.Port != test.port || config.Pairings != test.pairings {
			t.Errorf("%s: port %d, %d pairings", test.text, config.Port, config.Pairings)
		}
	}
}

// Files, separated by a line, each followed by all that is said of it: a line that begins with ! for each
// problem, without "config.json:", and lines that begin with !! to continue it.
const badConfigs = `
! 1:1: the file is empty: write at least { "customerAgentMap": {} }
----


! 2:1: the file is empty: write at least { "customerAgentMap": {} }
----
{
  "customerAgentMap": {
    "14156667777": "1415
! 3:25: the file ends too early: a closing brace or quote is missing, here or above
----
{ "customerAgentMap": { "14156667777": "14156667778" }
! 1:55: the file ends too early: a closing brace or quote is missing, here or above
----
{"a": {"14156667777": "14156667778",}}
! 1:36: unexpected ",": no comma may stand before a closing brace: remove it
----
{"a": {
"14156667777": "14156667778" ,

}}
! 2:30: unexpected ",": no comma may stand before a closing brace: remove it
----
{"a": {
"14156667777": "14156667778"

"14156667779": "14156667780"}}
! 2:29: a comma is missing: write one between two pairs
----
{"a": {"b": 1}
"c": 1}
! 1:15: a comma is missing: write one between two pairs
----
{"a": {}}}
! 1:10: unexpected "}": look for a missing or extra comma, quote or brace here or just before
----
{"ü": x}
! 1:7: unexpected "x": look for a missing or extra comma, quote or brace here or just before
----
{"a": "b"c"}
! 1:10: unexpected "c": look for a missing or extra comma, quote or brace here or just before
----
{"a": "b" ü}
! 1:11: unexpected "ü": look for a missing or extra comma, quote or brace here or just before
----
{"a" = 1}
! 1:6: unexpected "=": write a colon between a key and its value, or the quote that ends the key
----
{"a" => 1}
! 1:6: unexpected "=": write a colon between a key and its value, or the quote that ends the key
----
{"a"; 1}
! 1:5: unexpected ";": write a colon between a key and its value, or the quote that ends the key
----
{"14156667777" "14156667778"}
! 1:16: unexpected """: write a colon between a key and its value, or the quote that ends the key
----
{"a": {"14156667777", "14156667778"}}
! 1:21: unexpected ",": write a colon between a key and its value, or the quote that ends the key
----
{'a': {}}
! 1:2: unexpected "'": not the quote of JSON: write " around each key and text
----
{“a”: {}}
! 1:2: unexpected "“": not the quote of JSON: write " around each key and text
----
{"ü": “a”}
! 1:7: unexpected "“": not the quote of JSON: write " around each key and text
----
{"a: "b"}
! 1:7: unexpected "b": write a colon between a key and its value, or the quote that ends the key
----
{"a”: {
"b": 1}}
! 1:8: unexpected U+000A: a text must end in its line, with ": look for a missing or curly quote
----
{
"call": {"connectingMessage": "C:\users"}}
! 2:34: unexpected "\": write \\ for a backslash in a text
----
{"a": "ü\q"}
! 1:9: unexpected "\": write \\ for a backslash in a text
----
{"a": "It\'s \#1"}
! 1:10: unexpected "\": write \\ for a backslash in a text
----
{"a": 1, // b
"c": 2}
! 1:10: unexpected "/": JSON has no comments: remove this one
----
{"a": 1, /* b */ "c": 2}
! 1:10: unexpected "/": JSON has no comments: remove this one
----
# a
{}
! 1:1: unexpected "#": JSON has no comments: remove this one
----
{"a": {
<<<<<<< HEAD
"b": 1
=======
! 2:1: unexpected "<": a merge conflict: keep one of the two versions, and remove the marks
----
{"a": 1,
"b": 2
=======
}
! 3:1: unexpected "=": a merge conflict: keep one of the two versions, and remove the marks
----
{"a": 1
|||||||
}
! 2:1: unexpected "|": a merge conflict: keep one of the two versions, and remove the marks
----
<!DOCTYPE html>
! 1:1: this is not JSON: the file must begin with {
----
customer,agent
14156667777,14156667778
! 1:1: this is not JSON: the file must begin with {
----

14156667777,14156667778
! 2:1: this is not JSON: the file must begin with {
----
app:
  port: 5000
! 1:1: this is not JSON: the file must begin with {
----
[app]
port = 5000
! 1:1: this is not JSON: the file must begin with {
----
x
! 1:1: this is not JSON: the file must begin with {
----
“
! 1:1: this is not JSON: the file must begin with {
----
"customerAgentMap": {}
! 1:1: this is not JSON: the file must begin with {
----
[{"customerAgentMap": {}}]
! 1: the file must have the form { "customerAgentMap": { "CUSTOMER": "AGENT" } }
----
{}
! 1: no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet
----
{
"app": {
  "port": 5000,
  "customerAgentMap": {}
}}
! 4: unknown key "customerAgentMap" in app: write port; pairings belong inside customerAgentMap
----
{
"CustomerAgentMap": {"a": [{}, {}]}}
! 2: unknown key "CustomerAgentMap" in the file: write app, call, customerAgentMap or plivoNumbers;
!! pairings belong inside customerAgentMap
----
{"customerAgentMap": ["14156667777", "14156667778"], "plivoNumbers": [{"a": [1]}], "app": 5, "call": "b"}
! 1: customerAgentMap must have the form { "CUSTOMER": "AGENT" }
! 1: plivoNumbers must have the form { "PLIVO NUMBER": { "CUSTOMER": "AGENT" } }
! 1: app must have the form { "port": 5000 }
! 1: call must have the form { "ringTimeout": 30 }
----
{"app": {
"prot": [
1,
2],
"port": 0}, "customerAgentMap": {}}
! 2: unknown key "prot" in app: write port; pairings belong inside customerAgentMap
! 5: app.port must be a whole number from 1 to 65535, without quotes
----
{"app": {"port": 1}, "app.port": 2, "customerAgentMap": {}}
! 1: unknown key "app.port" in the file: write app, call, customerAgentMap or plivoNumbers;
!! pairings belong inside customerAgentMap
----
{"app": {"port": 1,
"port": 2}, "customerAgentMap": {},
"customerAgentMap": {"14156667777": "14156667778"}}
! 2: "port" is already in line 1: put the two into one
! 3: "customerAgentMap" is already in line 2: put the two into one
----
{"customerAgentMap": {
"14156667777": 14156667778,
"14156667779": {
"a": 1
},
"14156667781": ["14156667782", "14156667783"],
"1": "14156667778"}}
! 2: the agent must be one phone number in quotes (a map of them belongs in plivoNumbers)
! 3: the agent must be one phone number in quotes (a map of them belongs in plivoNumbers)
! 6: the agent must be one phone number in quotes (a map of them belongs in plivoNumbers)
! 7: the customer is no phone number: it has 1 digit; write 7 to 15, country code included
----
{"customerAgentMap": {"1415666777O": "0415 6667778"}}
! 1: the customer is no phone number: it has the character "O"; write digits only,
!! with or without + in front
! 1: the agent is no phone number: it begins with 0; begin with the country code, without 0 or 00
----
{"customerAgentMap": {"14156667777.0": "1.41567E+10"}}
! 1: the customer is no phone number: it ends in .0, as spreadsheets write numbers; remove that
! 1: the agent is no phone number: a spreadsheet has shortened it; format the column as text and enter it anew
----
{"customerAgentMap": {"14156667777": "+1 4156667777"}}
! 1: the customer is paired with itself: write the agent's number after the customer's
----
{"customerAgentMap": {
"14156667777": "14156667778",

"+1 415 666 7777": "14156667779"}}
! 4: the customer is already the customer of the pairing in line 2, and only one phone can ring:
!! correct one, or let plivoNumbers give each pairing a Plivo number of its own
----
{"customerAgentMap": {
"14156667777": "14156667778",
"14156667779": "1 415 666 7778"}}
! 3: the agent is already the agent of the pairing in line 2, and only one phone can ring:
!! correct one, or let plivoNumbers give each pairing a Plivo number of its own
----
{"customerAgentMap": {
"14156667777": "14156667778",
"14156667779": "14156667777"}}
! 3: the agent is already the customer of the pairing in line 2, and only one phone can ring:
!! correct one, or let plivoNumbers give each pairing a Plivo number of its own
----
{"plivoNumbers": {"14155550100": {
"14156667777": "14156667778",
"14156667778": "14156667779"}}}
! 3: the customer is already the agent of the pairing in line 2, and only one phone can ring:
!! correct one, or let plivoNumbers give each pairing a Plivo number of its own
----
{"plivoNumbers": {"1": {
"14156667777": 0}, "2": "14156667777"}}
! 1: the Plivo number is no phone number: it has 1 digit; write 7 to 15, country code included
! 2: the agent must be one phone number in quotes (a map of them belongs in plivoNumbers)
! 2: the Plivo number is no phone number: it has 1 digit; write 7 to 15, country code included
! 2: the value of a Plivo number must have the form { "CUSTOMER": "AGENT" }
----
{"plivoNumbers": {
"14155550100": {},
"+1 415 555 0100": {}}}
! 3: the Plivo number is already in line 2: put all its pairings there
----
{"customerAgentMap": {
"14156667777": "14156667778"},
"plivoNumbers": {
"14156667778": {
"14156667779": "14155550101"},
"14155550101": {"1": "14156667777"}}}
! 2: the agent is also in plivoNumbers, and would dial itself: correct one
! 5: the agent is also in plivoNumbers, and would dial itself: correct one
! 6: the customer is no phone number: it has 1 digit; write 7 to 15, country code included
----
{"plivoNumbers": {
"14155550100": {
"14155550100": "14156667777"}}}
! 3: the customer is also in plivoNumbers, and would dial itself: correct one
----
{"customerAgentMap": {"14156667777": "14156667778"}, "plivoNumbers": {"14156667778": {}, "14156667777": {}}}
! 1: the customer is also in plivoNumbers, and would dial itself: correct one
! 1: the agent is also in plivoNumbers, and would dial itself: correct one
----
{"call": {"connectingMessage": 1, "noAnswerMessage": ["a"],
"language": "German",
"ringTimeout": "60",
"timeLimit": 1.5}, "customerAgentMap": {}}
! 1: call.connectingMessage must be a text in quotes, of at most 10000 bytes
! 1: call.noAnswerMessage must be a text in quotes, of at most 10000 bytes
! 2: call.language must be a language and country code in quotes, such as "de-DE"
! 3: call.ringTimeout must be a whole number from 1 to 86400, without quotes
! 4: call.timeLimit must be a whole number from 1 to 86400, without quotes
----
{"app": {"port": 65536}, "call": {"ringTimeout": 86401, "timeLimit": null}, "customerAgentMap": {}}
! 1: app.port must be a whole number from 1 to 65535, without quotes
! 1: call.ringTimeout must be a whole number from 1 to 86400, without quotes
! 1: call.timeLimit must be a whole number from 1 to 86400, without quotes
`

func TestBadConfigs(t *testing.T) {
	for test := range strings.SplitSeq(strings.Trim(badConfigs, "\n"), "\n----\n") {
		at := strings.Index("\n"+test, "\n! ")
		text, want := strings.TrimSuffix(test[:at], "\n"), strings.ReplaceAll(test[at:], "\n!! ", " ")
		isSaid(t, text, strings.ReplaceAll(want, "! ", "config.json:"))
	}
	const (
		quote     = `not the quote of JSON: write " around each key and text`
		invisible = "no tab or other invisible character may stand here: remove it, or write a space"
		notUTF8   = "not UTF-8, perhaps UTF-16 or Latin-1: save it as UTF-8"
		tooLong   = "call.noAnswerMessage must be a text in quotes, of at most 10000 bytes"
	)
	long := strings.Repeat("x", 10_001)
	for _, test := range []struct{ text, want string }{ // what does not print, or not in backquotes
		{"{`a`: {}}", "1:2: unexpected \"`\": " + quote},
		{"{\n\u00a0\u00a0\"a\": {}}", "2:1: unexpected U+00A0: " + invisible},
		{"{\"a\": \"b\tc\"}", "1:9: unexpected U+0009: " + invisible},
		{"{\n\"call\": {\"connectingMessage\": \"Gr\xfc\xdfe\"}}", "2: " + notUTF8},
		{"{\n\"a\uFFFD\": 1,\n\n\"b\": \"\xff\"}", "4: " + notUTF8},
		{"{\n\n\x00}", "3: " + notUTF8},
		{"\xff\xfe{\x00}\x00", "1: " + notUTF8},
		{`{"call": {"noAnswerMessage": "` + long + `"}, "customerAgentMap": {}}`, "1: " + tooLong},
	} {
		isSaid(t, test.text, "config.json:"+test.want)
	}
	for code := range strings.FieldsSeq(`"" "de" "de_DE" "DE-de" "deDE" "de-DE-x" "de-DE\u0000" "d3-DE" 5`) {
		isSaid(t, `{"call": {"language": `+code+`}, "customerAgentMap": {}}`, "config.json:1: "+
			`call.language must be a language and country code in quotes, such as "de-DE"`)
	}
}

// isSaid checks that text is refused with this message, each time.
func isSaid(t *testing.T, text, want string) {
	t.Helper()
	for range 3 {
		_, err := ParseConfig("config.json", []byte(text))
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s\nis said to be:\n%s\nwant:\n%s", text, got, want)
			return
		}
		noNumbers(t, "the message", err.Error())
	}
}

// A pairing outside of its map is an unknown key: no spelling of its number is shown.
func TestUnknownKeyWithDigitsIsHidden(t *testing.T) {
	for _, key := range []string{
		"14156667777", "+1 (415) 666-7777", "1–415–666–7777", "1/415/666/7777", "1,415,666,7777",
		"1_415_666_7777", "1&nbsp;415&nbsp;666&nbsp;7777", "x1",
		"１４１５６６６７７７７", "١٤١٥٦٦٦٧٧٧٧", "①④①⑤⑥⑥⑥⑦⑦⑦⑦",
	} {
		isSaid(t, `{"`+key+`": 1, "`+key+`": "14156667778"}`, "config.json:1: "+
			"unknown key (hidden, as it has digits) in the file: write app, call, customerAgentMap or "+
			"plivoNumbers; pairings belong inside customerAgentMap\n"+
			"config.json:1: (hidden, as it has digits) is already in line 1: put the two into one")
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
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) != 21 || !strings.HasPrefix(lines[19], "config.json:21: the agent must be") ||
		lines[20] != "config.json: 5 more problems like these" {
		t.Errorf("%d lines:\n%v", len(lines), err)
	}
}

// Whatever is wrong with a file, to find that out takes memory in proportion to its size.
func TestMistakenFileTakesNoMoreMemoryThanItsSize(t *testing.T) {
	const n = 20_000
	repeat := func(begin, format, end string) string {
		var b strings.Builder
		b.WriteString(begin)
		for i := range n {
			fmt.Fprintf(&b, format, 2_000_000_000+2*i, 2_000_000_001+2*i)
		}
		return strings.TrimSuffix(b.String(), ",\n") + end
	}
	for name, text := range map[string]string{
		"good":                         repeat(`{"customerAgentMap": {`, "\"%d\": \"%d\",\n", "}}"),
		"pairs right in plivoNumbers":  repeat(`{"plivoNumbers": {`, "\"%d\": \"%d\",\n", "}}"),
		"no colon":                     repeat(`{"customerAgentMap": {`, "\"%d\" \"%d\",\n", "}}"),
		"pairs without a map":          repeat(`{`, "\"%d\": \"%d\",\n", "}"),
		"maps as agents":               repeat(`{"customerAgentMap": {`, "\"%d\": {\"%d\": [1]},\n", "}}"),
		"the same number":              repeat(`{"customerAgentMap": {`, "\"%d\": \"%[1]d\",\n", "}}"),
		"an unknown tree":              `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}",
		"an unknown list":              `{"a": [` + strings.Repeat("1,[],", 100_000) + "1]}",
		"a list":                       "[" + strings.Repeat("[],{},", 100_000) + "1]",
		"a number":                     `{"app": {"port": ` + strings.Repeat("1", 500_000) + "}}",
		"a text":                       `{"call": {"language": "` + strings.Repeat("é", 250_000) + `"}}`,
		"a key":                        `{"` + strings.Repeat("a", 500_000) + `": 1}`,
		"empty lines":                  strings.Repeat("\n", 500_000),
		"empty lines before a mistake": "{" + strings.Repeat("\n", 500_000) + "x",
		"as many Plivo numbers":        repeat(`{"plivoNumbers": {`, "\"%d\": {}, \"%d\": {},\n", "}}"),
		"each key twice":               repeat(`{"call": {`, "\"%[1]d\": {}, \"%[1]d\": {},\n", "}}"),
		"backslashes":                  `{"` + strings.Repeat(`\\`, 250_000) + `\x`,
	} {
		before := allocated()
		_, err := ParseConfig("config.json", []byte(text))
		if grown := allocated() - before; grown > 1<<20+uint64(memoryPerByte*len(text)) {
			t.Errorf("%s: %d bytes took %d bytes of memory", name, len(text), grown)
		}
		if (err == nil) != (name == "good" || name == "as many Plivo numbers") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

// memoryPerByte of a config file is allocated at most, all in all, to read it.
const memoryPerByte = 100

// What is too large for a config file is not read at all.
func TestHugeFileIsNotRead(t *testing.T) {
	file := &ConfigFile{path: filepath.Join(t.TempDir(), "config.json")}
	write(t, file.path, sampleConfig)
	if err := os.Truncate(file.path, 256<<20+1); err != nil { // the rest is zeros, and takes no room
		t.Skip(err)
	}
	before := allocated()
	looks := func(want bool) {
		t.Helper()
		if got := file.Edited(); got != want {
			t.Errorf("is an edit: %t", got)
		}
	}
	looks(false)
	looks(true)
	_, err := file.Load()
	const want = "config.json is larger than 256 MB: put a file there that can be read"
	if !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("%v; want %s", err, want)
	}
	looks(false)
	looks(false)
	if grown := allocated() - before; grown > 1<<20 {
		t.Errorf("took %d bytes of memory", grown)
	}
}

// The first difference from what was loaded may be half of an edit; the second look decides, also if the
// file is another one by then. What was tried is not tried again, whether it was good or not.
func TestEditedAtTheSecondLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	file := &ConfigFile{path: path}
	looks := func(want ...bool) {
		t.Helper()
		for i, want := range want {
			if got := file.Edited(); got != want {
				t.Fatalf("look %d: %t", i, got)
			}
		}
	}
	load := func(want string) {
		t.Helper()
		if _, err := file.Load(); !strings.Contains(fmt.Sprint(err), want) {
			t.Fatalf("%v; want %s", err, want)
		}
	}
	load("put a file there that can be read, or name another with -config")
	looks(false, false)
	write(t, path, sampleConfig)
	looks(false, true)
	load("<nil>")
	looks(false, false)
	write(t, path, "{")
	looks(false)
	write(t, path, "{}")
	looks(true)
	write(t, path, "[]") // between the look and the loading
	load("must have the form")
	write(t, path, sampleConfig)
	looks(false)
	write(t, path, "[]") // and back
	looks(false, false)
	write(t, path, "{")
	load("too early") // as at SIGHUP
	load("too early")
	looks(false)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	looks(false, true)
	load(path + ": ") // not found, in the words of the system
	looks(false, false)
}

// ---- Answers ----

const (
	plivoNumber = "14155550100"
	callUUID    = "97ceeb52-58b6-11e1-86da-77300b68f8bb"
	form        = "CallUUID=" + callUUID + "&Event=StartApp&From=14156667777&To=" + plivoNumber
	connect     = `<Response><Dial callerId="` + plivoNumber + `" callerName="` + plivoNumber + `">` +
		`<Number>%s</Number></Dial></Response>`
	rejected     = `<Response><Hangup reason="rejected"></Hangup></Response>`
	nothing      = `<Response></Response>`
	sampleConfig = `{"customerAgentMap": {"14156667777": "14156667778", "14156667779": "14156667780"}}`
)

// Each row is a call as a query; each is tried by GET, by POST with a form and by POST with a query, with
// and without the slash.
func TestAnswers(t *testing.T) {
	const toPlivo, uuid = "&To=" + plivoNumber, "&CallUUID=" + callUUID
	agent, customer := fmt.Sprintf(connect, "14156667778"), fmt.Sprintf(connect, "14156667777")
	for _, test := range []struct{ query, answer, log string }{
		{form, agent, "msg=dialling call=" + callUUID +
			" from=*******7777 to=*******0100 caller=customer dialled=*******7778 took="},
		{"From=14156667778" + toPlivo, customer,
			"call=none from=*******7778 to=*******0100 caller=agent dialled=*******7777"},
		{"From=%2B14156667777&To=%2B" + plivoNumber, agent, "msg=dialling"},
		{"From=+14156667777&To=+" + plivoNumber, agent, "msg=dialling"},
		{"HangupCause=&From=14156667777" + toPlivo, agent, "msg=dialling"},

		{"From=14156660000" + toPlivo + "&CallUUID=14", rejected,
			`rejected: the caller is not in customerAgentMap; plivoNumbers does not list this number" ` +
				"call=(hidden) from=*******0000 to=*******0100"},
		{"From=anonymous" + toPlivo, rejected,
			`rejected: the caller's number is withheld or no phone number" call=none from=none`},
		{"From=" + toPlivo, rejected, "withheld"},
		{"From=sip%3Abob14156667777%40a.b" + toPlivo, rejected, "withheld"},
		{"From=141566677770" + toPlivo, rejected, "no phone number"},
		{"From=14156667777&To=14156667778", rejected, "level=WARN " +
			`msg="call rejected: the number to dial is the Plivo number called; correct that pairing"`},
		{"From=14156667777&To=14156667777", rejected,
			`level=WARN msg="call rejected: the caller's number is the Plivo number called"`},
		{"From=14156660000&To=14156660000", rejected, "level=WARN"},

		{"Event=Hangup&Duration=42&HangupCause=NORMAL_CLEARING&From=14156667777" + toPlivo + uuid,
			nothing, `msg="call ended" call=` + callUUID +
				" from=*******7777 to=*******0100 cause=NORMAL_CLEARING seconds=42"},
		{"HangupCause=Canceled+(Out+Of+Credits)&Duration=0", nothing,
			`from=none to=none cause="Canceled (Out Of Credits)" seconds=0`},
		{"HangupCause=1415666&Duration=14156667777", nothing, "cause=(hidden) seconds=(hidden)"},
		{"HangupCauseName=Rejected&HangupSource=Callee", nothing, "cause=Rejected seconds=none"},
		{"Event=Hangup", nothing, "cause=none"},
		{"Event=Hangup&DialStatus=busy", nothing, `msg="call ended"`},
		{"DialStatus=busy&" + form, nothing, `msg="dial ended"`}, // without call.noAnswerMessage
	} {
		for _, path := range []string{"/handleincoming/", "/handleincoming"} {
			for _, request := range []*http.Request{
				get(path + "?" + test.query),
				post(path, test.query),
				httptest.NewRequest("POST", path+"?"+test.query, nil),
			} {
				s := newServer(t, sampleConfig)
				w := s.send(request)
				sameXML(t, w.Body.String(), test.answer)
				if w.Code != 200 || w.Header().Get("Content-Type") != "application/xml" ||
					w.Header().Get("Cache-Control") != "no-store" {
					t.Errorf("status %d, header %v", w.Code, w.Header())
				}
				s.logsOneLine(test.log)
			}
		}
	}
}

// One agent, 14156660001, serves a customer on each of two Plivo numbers, and one on all that are not
// listed. Whoever calls back reaches the phone that rang them, so a listed number serves its own only.
func TestPlivoNumbersOwnPairings(t *testing.T) {
	const config = `{
		"customerAgentMap": {"14156660002": "14156660001"},
		"plivoNumbers": {
			"14155550101": {"14156660003": "14156660001"},
			"+1 (415) 555-0102": {"14156660004": "14156660001", "14156660005": "14156660006"},
			"14155550103": {}
		}}`
	checkUnambiguous(t, parse(t, config))
	for _, test := range []struct{ from, to, dialled string }{
		{"14156660001", "14155550100", "14156660002"},
		{"14156660001", "14155550101", "14156660003"},
		{"14156660001", "14155550102", "14156660004"},
		{"14156660002", "14155550100", "14156660001"},
		{"14156660002", "14155550101", ""},
		{"14156660003", "14155550101", "14156660001"},
		{"14156660003", "14155550102", ""},
		{"14156660004", "14155550102", "14156660001"},
		{"14156660005", "14155550102", "14156660006"},
		{"14156660006", "14155550102", "14156660005"},
		{"14156660006", "14155550100", ""},
		{"14156660002", "14155550103", ""},
	} {
		s := newServer(t, config)
		want := rejected
		log := "rejected: the caller is in no pairing of this Plivo number, which plivoNumbers lists"
		if test.to == "14155550100" {
			log = "rejected: the caller is not in customerAgentMap; plivoNumbers does not list this number"
		}
		if test.dialled != "" {
			want = strings.ReplaceAll(fmt.Sprintf(connect, test.dialled), plivoNumber, test.to)
			log = "msg=dialling"
		}
		sameXML(t, s.send(post("/handleincoming/", "From="+test.from+"&To="+test.to)).Body.String(), want)
		s.logsOneLine(log)
	}
}

func TestCallOptions(t *testing.T) {
	for _, test := range []struct{ options, known, unknown string }{
		{`"unknownCallerMessage": "Who?", "connectingMessage": "One moment."`,
			"<Speak>One moment.</Speak><Dial", "<Speak>Who?</Speak><Hangup></Hangup>"},
		{`"unknownCallerMessage": "Wer?", "connectingMessage": "Moment.", "language": "de-DE"`,
			`<Speak language="de-DE">Moment.</Speak><Dial`,
			`<Speak language="de-DE">Wer?</Speak><Hangup></Hangup>`},
		{`"ringTimeout": 30, "timeLimit": 86400`,
			`<Dial timeLimit="86400" timeout="30"`, `<Hangup reason="rejected"></Hangup>`},
		{`"noAnswerMessage": "Sorry.", "language": "de-DE"`,
			`<Dial action="http://example.com/handleincoming/"`, `<Hangup reason="rejected"></Hangup>`},
	} {
		s := newServer(t, `{"call": {`+test.options+`}, "customerAgentMap": {"14156667777": "14156667778"}}`)
		known := strings.Replace(fmt.Sprintf(connect, "14156667778"), "<Dial", test.known, 1)
		unknown := "<Response>" + test.unknown + "</Response>"
		for from, want := range map[string]string{
			"14156667777": known, "12025550123": unknown, "anonymous": unknown, plivoNumber: unknown,
		} {
			sameXML(t, s.send(post("/handleincoming/", "From="+from+"&To="+plivoNumber)).Body.String(), want)
		}
		sameXML(t, s.send(post("/handleincoming/", "Event=Hangup")).Body.String(), nothing)
	}
}

// With call.noAnswerMessage, Plivo is to call the same URL again when a Dial has ended.
func TestActionOfADialIsTheURLThatPlivoCalled(t *testing.T) {
	const config = `{"call": {"noAnswerMessage": "a"}, "customerAgentMap": {"14156667777": "14156667778"}}`
	with := func(pairs ...string) *http.Request { return header(post("/handleincoming/", form), pairs...) }
	for _, test := range []struct {
		publicURL string
		request   *http.Request
		action    string
	}{
		{"", post("/handleincoming", form), "http://example.com/handleincoming"},
		{"", get("/handleincoming/?a=<&" + form), "http://example.com/handleincoming/"},
		{"", with("Host", "[::1]:5000"), "http://[::1]:5000/handleincoming/"},
		{"", with("X-Forwarded-Proto", "https", "X-Forwarded-Host", "a.example, b"),
			"https://a.example/handleincoming/"},
		{"https://mask.example/prefix/", with(), "https://mask.example/prefix/handleincoming/"},
		{"https://a.example", with("Host", "%"), "https://a.example/handleincoming/"},
	} {
		s := newServer(t, config).publicURL(t, test.publicURL)
		dial := `<Dial action="` + test.action + `"`
		want := strings.Replace(fmt.Sprintf(connect, "14156667778"), "<Dial", dial, 1)
		sameXML(t, s.send(test.request).Body.String(), want)
	}
	tooLong := strings.Repeat("a", 256)
	for _, host := range []string{"", "%zz", "a/b", `a"b`, "14156667777", "a:b", "a:", tooLong} {
		s := newServer(t, config)
		w := s.send(with("Host", host))
		const reason = "the Host or X-Forwarded-Host header is malformed"
		if w.Code != 400 || !strings.Contains(w.Body.String(), reason) {
			t.Errorf("host %q: status %d: %s", host, w.Code, w.Body)
		}
		s.logsOneLine(reason)
	}
}

// Whatever else the parameters hold, what Plivo says of a Dial that has ended starts no other.
func TestWhatBecameOfADialIsLoggedAndAnswered(t *testing.T) {
	const sorry = `<Response><Speak language="de-DE">Niemand da.</Speak></Response>`
	for _, test := range []struct{ query, answer, log string }{
		{form + "&DialStatus=completed&DialHangupCause=NORMAL_CLEARING&DialBLegUUID=" + callUUID, nothing,
			`msg="dial ended" call=` + callUUID +
				" from=*******7777 to=*******0100 status=completed cause=NORMAL_CLEARING took="},
		{form + "&DialStatus=cancel&DialHangupCause=ORIGINATOR_CANCEL", nothing,
			"status=cancel cause=ORIGINATOR_CANCEL"},
		{form + "&DialStatus=no-answer&DialHangupCause=NO_ANSWER", sorry, "status=no-answer cause=NO_ANSWER"},
		{form + "&DialStatus=busy&DialHangupCause=USER_BUSY&HangupCause=X", sorry,
			"status=busy cause=USER_BUSY"},
		{form + "&DialStatus=timeout", sorry, "status=timeout cause=none"},
		{form + "&DialStatus=failed&DialHangupCause=14156667778", sorry, "status=failed cause=(hidden)"},
		{form + "&DialStatus=14156667778", sorry, "status=(hidden)"},
		{form + "&DialStatus=", sorry, "status=none"},
		{form + "&DialStatus=busy&DialStatus=completed", sorry, "status=busy"},
		{"DialStatus=busy", sorry, "call=none from=none to=none status=busy"},
		{"DialStatus=busy&From=anonymous&To=sip%3A14156667777%40a.b", sorry, "from=none to=none status=busy"},
		{form[len("CallUUID="+callUUID+"&Event=StartApp"):] + "&Event=Hangup&DialStatus=busy", nothing,
			`msg="call ended"`},
	} {
		for _, request := range []*http.Request{
			get("/handleincoming/?" + test.query),
			post("/handleincoming", test.query),
		} {
			s := newServer(t, `{
				"call": {"noAnswerMessage": "Niemand da.", "language": "de-DE", "connectingMessage": "a"},
				"customerAgentMap": {"14156667777": "14156667778"}
			}`)
			sameXML(t, s.send(request).Body.String(), test.answer)
			s.logsOneLine(test.log)
		}
	}
}

// Whatever a message holds, it comes out as the text of one Speak element.
func TestAnyMessageIsWellFormedXML(t *testing.T) {
	for _, text := range []string{
		`<Dial callerId="1"><Number>2</Number></Dial>`, "</Speak></Response>", "a & b < c > \"d\" 'e'", "]]>",
		"<Contents>", "&lt;Contents&gt;", "<!-- -->", "line\nbreak\ttab", "ü € 😀",
		"\x01\x1f\x7f\ufffe\uffff",
	} {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(t, strings.ReplaceAll(`{
			"call": {"unknownCallerMessage": TEXT, "connectingMessage": TEXT, "noAnswerMessage": TEXT},
			"customerAgentMap": {"14156667777": "14156667778"}
		}`, "TEXT", string(quoted)))
		for query, elements := range map[string]string{
			"From=14156667777": "Speak Dial", "From=12025550123": "Speak Hangup", "DialStatus=busy": "Speak",
		} {
			body := s.send(post("/handleincoming/", query+"&To="+plivoNumber)).Body.String()
			response, err := parseXML(body)
			var names []string
			for _, child := range response.Children {
				names = append(names, child.XMLName.Local)
			}
			if err != nil || strings.Join(names, " ") != elements {
				t.Errorf("%q: %v: %s", text, err, body)
				continue
			}
			spoken := response.Children[0]
			notInXML := regexp.MustCompile("[\x01\x1f\ufffe\uffff]")
			want := notInXML.ReplaceAllString(text, "\uFFFD")
			if spoken.Text != want || spoken.Children != nil {
				t.Errorf("%q: %s", text, body)
			}
		}
	}
}

func TestWhatIsNoCallIsRefused(t *testing.T) {
	const call = "From=14156667777&To=14155550100"
	asJSON := httptest.NewRequest("POST", "/handleincoming/", strings.NewReader(`{"From": "14156667777"}`))
	asJSON.Header.Set("Content-Type", "application/json")
	cutOff := post("/handleincoming/", "")
	cutOff.Body = io.NopCloser(io.MultiReader(strings.NewReader(call[:20]), &brokenReader{}))
	badType := header(post("/handleincoming/", call), "Content-Type", "application/x-www-form-urlencoded; =")
	padded := func(size int) string { return call + "&x=" + strings.Repeat("x", size-len(call)-3) }
	parameters := func(n int) string {
		var form strings.Builder
		for i := range n - 2 {
			fmt.Fprintf(&form, "%x=&", i)
		}
		return form.String() + call
	}
	request := func(method, path string) *http.Request { return httptest.NewRequest(method, path, nil) }
	for _, test := range []struct {
		request   *http.Request
		status    int
		body, log string // parts of them; no body means the same as log
	}{
		{get("/handleincoming/"), 400, "From is missing.\nA call looks like /handleincoming/?From=",
			`status=400 method=GET path=/handleincoming/ call=none reason="the parameter From is missing"`},
		{get("/handleincoming/?From=14156667777"), 400, "", "To is missing"},
		{get("/handleincoming/?From=14156667777&To="), 400, "", "To is not a phone number"},
		{get("/handleincoming?To=sip%3Aa%40b&From=1&CallUUID=" + callUUID), 400, "To is", "call=" + callUUID},
		{get("/handleincoming/?" + call + "&From=14156667779"), 400, "", "given more than once"},
		{post("/handleincoming/?To=14155550100", "From=14156667777&To=14155550101"), 400, "", "more than"},
		{asJSON, 400, "From is missing", "method=POST"},

		{get("/handleincoming/?From=%zz14156667777&To=14155550100"), 400, "", "not escaped"},
		{post("/handleincoming/", "From=1415666%7777&To=%"), 400, "", "not escaped"},
		{get("/handleincoming/?From=14156667777;To=14155550100"), 400, "", "not escaped"},
		{badType, 400, "", "not escaped"},
		{cutOff, 400, "", "cut off"},
		{post("/handleincoming/", padded(64<<10+1)), 413, "larger than 64 KiB", "status=413"},
		{post("/handleincoming/", padded(64<<10)), 200, "14156667778", "msg=dialling"},
		{post("/handleincoming/", parameters(101)), 400, "", "there are more than 100 parameters"},
		{post("/handleincoming/", parameters(11_000)), 400, "", "there are more than 100 parameters"},
		{get("/handleincoming/?" + parameters(11_000)), 400, "", "there are more than 100 parameters"},
		{get("/handleincoming/?" + parameters(100)), 200, "14156667778", "msg=dialling"},

		{request("PUT", "/handleincoming/?"+form), 405, "use GET or POST here",
			"status=405 method=PUT path=/handleincoming/ call=" + callUUID + ` reason="use GET or POST`},
		{request("M14156667777", "/handleincoming"), 405, "use GET or POST here", "method=(hidden)"},
		{get("/"), 404, "/handleincoming/", "status=404 method=GET path=/ call=none"},
		{post("/handleIncoming", form), 404, "/handleincoming/", "path=/handleIncoming call=" + callUUID +
			` reason="nothing is here: the answer URL is /handleincoming/`},
		{get("/handleincoming/14156667777"), 404, "/handleincoming/", "path=(hidden)"},
		{get("/1-415-66"), 404, "/handleincoming/", "path=(hidden)"},
		{get("/v2/Handle_incoming/a.xml"), 404, "/handleincoming/", "path=/v2/Handle_incoming/a.xml"},
		{get("/" + strings.Repeat("a", 30000)), 404, "/handleincoming/", "path=(hidden)"},
		// Not redirected:
		{request("POST", "//handleincoming/"), 404, "/handleincoming/", "path=//handleincoming/"},
		{get("/x/../handleincoming/"), 404, "/handleincoming/", "status=404"},
	} {
		s := newServer(t, sampleConfig)
		w := s.send(test.request)
		name := fmt.Sprintf("%s %.100s", test.request.Method, test.request.URL)
		if w.Code != test.status || !strings.Contains(w.Body.String(), cmp.Or(test.body, test.log)) {
			t.Errorf("%s: status %d, body %q; want %d and %q", name, w.Code, w.Body, test.status, test.body)
		}
		s.logsOneLine(test.log)
		if allow := w.Header().Get("Allow"); test.status == 405 && allow != "GET, POST" {
			t.Errorf("%s: Allow: %q", name, allow)
		}
		contentType := w.Header().Get("Content-Type")
		if test.status != 200 && !strings.HasPrefix(contentType, "text/plain") {
			t.Errorf("%s: Content-Type %q", name, contentType)
		}
	}
}

type brokenReader struct{}

func (*brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHealthz(t *testing.T) {
	s := newServer(t, sampleConfig)
	if w := s.send(get("/healthz")); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("GET: %d %q", w.Code, w.Body)
	}
	if w := s.send(httptest.NewRequest("HEAD", "/healthz", nil)); w.Code != 200 || s.log.String() != "" {
		t.Errorf("HEAD: %d, log %s", w.Code, s.log)
	}
	if w := s.send(post("/healthz", "")); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", w.Code, w.Header().Get("Allow"))
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
		"Direction":       {"outbound"},
		"From":            {"19792014278"},
		"ALegUUID":        {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"CallStatus":      {"in-progress"},
		"BillRate":        {"0.002"},
		"ParentAuthID":    {"MANWVLYTK4ZWU1YTY4QA"},
		"To":              {"sip:PlivoSignature382029104058171078704104@phone-qa.voice.plivodev.com"},
		"ALegRequestUUID": {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"CallUUID":        {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"RequestUUID":     {"3e82ae9d-2c78-4d85-b1a4-6eae7dbafb36"},
		"SIP-H-To":        {"<sip:PlivoSignature382029104058171078704104@52.9.11.55;transport=udp>;tag=1"},
		"SessionStart":    {"2020-04-08 11:34:33.238707"},
		"Event":           {"StartApp"},
	}.Encode()
	const path = "/api/v1/validate_signature03.xml"
	for signature, request := range map[string]*http.Request{
		"k7Pusd4OxCIjR5IfA9iedDNu/h/gbdYqdzG/MiYtd1c=": post(path+"/?a=b&c=d", params),
		"UBq8jAtd32wR8EK9VgxbBn4n5rpI/l1H9iN4WfSEHFQ=": get(path + "/?a=b&c=d&" + params),
		"iAjE5QqI37mbkYe4w3jTMudqEzbDufdqi7sYwTu64e0=": post(path, params),
		"i/MQsaQSAd6fiKhOh2qeeeLHZ9faldADSb3/7+Akfbc=": get(path + "?" + params),
	} {
		header(request, "Host", "plivobin.non-prod.plivops.com", "X-Forwarded-Proto", "https",
			"X-Plivo-Signature-V3", signature, "X-Plivo-Signature-V3-Nonce", nonce)
		h := &Handler{token: token}
		if err := request.ParseForm(); err != nil {
			t.Fatal(err)
		}
		if err := h.checkSignature(request, h.calledURL(request)); err != nil {
			t.Errorf("%s %s: %v", request.Method, request.URL, err)
		}
		request.Header.Set("X-Plivo-Signature-V3-Nonce", nonce+"0")
		if err := h.checkSignature(request, h.calledURL(request)); err == nil {
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
	signature := plivo.ComputeSignatureV3(token, base+r.URL.RequestURI(), r.Method, nonce, params)
	return header(r, "X-Plivo-Signature-V3-Nonce", nonce, "X-Plivo-Signature-V3", signature)
}

func TestSignedRequestIsAnswered(t *testing.T) {
	const special = "&SIP-H-To=%3Csip%3Aa%3Bt%3Dudp%3E%26%23%3F%2B%20%C3%BC"
	signedFor := func(base string) *http.Request { return signed(get("/handleincoming/?"+form), base) }
	here := signedFor("http://example.com")
	signature := here.Header.Get("X-Plivo-Signature-V3")
	for _, test := range []struct {
		name, publicURL string
		request         *http.Request
	}{
		{"GET", "", signed(get("/handleincoming/?"+form+special), "http://example.com")},
		{"POST without slash", "", signed(post("/handleincoming", form+special), "http://example.com")},
		{"POST with query", "", signed(post("/handleincoming/?a=b&c=d%20e%26f", form), "http://example.com")},
		{"POST with query only", "",
			signed(httptest.NewRequest("POST", "/handleincoming/?"+form, nil), "http://example.com")},
		{"main account's", "", header(signedFor("http://example.com"),
			"X-Plivo-Signature-Ma-V3", signature, "X-Plivo-Signature-V3", "another")},
		{"several", "", header(here, "X-Plivo-Signature-V3", "another, "+signature+",third")},
		{"port", "", header(signedFor("http://example.com:5000"), "Host", "example.com:5000")},
		{"IP address and port", "", header(signedFor("http://[::1]:5000"), "Host", "[::1]:5000")},
		{"https by header", "", header(signedFor("https://example.com"), "X-Forwarded-Proto", "HTTPS")},
		{"chain of proxies", "", header(signedFor("https://a.b"),
			"X-Forwarded-Proto", "https, http", "X-Forwarded-Host", "a.b, c")},
		{"PUBLIC_URL over headers", " https://mask.example \n", header(signedFor("https://mask.example"),
			"X-Forwarded-Proto", "http", "X-Forwarded-Host", "b")},
		{"PUBLIC_URL over a bad host", "https://mask.example",
			header(signedFor("https://mask.example"), "Host", "%zz")},
		{"PUBLIC_URL with prefix", "https://mask.example/pre/fix/",
			signed(post("/handleincoming/", form), "https://mask.example/pre/fix")},
		{"PUBLIC_URL with port", "https://mask.example:8443", signedFor("https://mask.example:8443")},
		{"default port, https", "https://mask.example:443/", signedFor("https://mask.example")},
		{"default port, http", "HTTP://mask.example:80", signedFor("http://mask.example")},
	} {
		s := newServer(t, sampleConfig).checkSignatures().publicURL(t, test.publicURL)
		w := s.send(test.request)
		if w.Code != 200 {
			t.Errorf("%s: status %d; log: %s", test.name, w.Code, s.log)
			continue
		}
		sameXML(t, w.Body.String(), fmt.Sprintf(connect, "14156667778"))
	}
}

// Each row changes a request that Plivo has signed, by GET or by POST, and has what the log then says.
func TestForgedRequestIsRefused(t *testing.T) {
	const (
		noFit     = "does not fit http://example.com/handleincoming/; compare that with"
		twice     = "a parameter is given twice"
		missing   = "is missing"
		malformed = "the Host or X-Forwarded-Host header is malformed"
	)
	changed := strings.Replace(form, "14156667777", "14156667779", 1)
	v2 := plivo.ComputeSignatureV2(token, "http://example.com/handleincoming/", nonce)
	by := func(token string) string {
		return plivo.ComputeSignatureV3(token, "http://example.com/handleincoming/?"+form, "GET", nonce, nil)
	}

	type edit func(*http.Request)
	query := func(query string) edit { return func(r *http.Request) { r.URL.RawQuery = query } }
	body := func(form string) edit {
		return func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(form)) }
	}
	set := func(pairs ...string) edit { return func(r *http.Request) { header(r, pairs...) } }
	unsigned := func(r *http.Request) { r.Header = http.Header{"Content-Type": r.Header["Content-Type"]} }
	both := func(one, other edit) edit { return func(r *http.Request) { one(r); other(r) } }
	for _, test := range []struct {
		name   string
		edit   edit
		reason string
	}{
		{"GET another caller", query(changed), noFit},
		{"GET a further parameter", query(form + "&HangupCause=BUSY"), noFit},
		{"GET the Dial's end", query(form + "&DialStatus=busy"), noFit},
		{"GET a second caller", query(form + "&From=14156667779"), twice},
		{"GET a first caller", query("From=14156667779&" + form), twice},
		{"GET a parameter less", query(strings.Replace(form, "&Event=StartApp", "", 1)), noFit},
		{"GET a fragment in the query", query(form + "#&HangupCause=BUSY"), noFit},
		{"GET another path", func(r *http.Request) { r.URL.Path = "/handleincoming" },
			"does not fit http://example.com/handleincoming;"},
		{"POST another caller", body(changed), noFit},
		{"POST a further parameter", body(form + "&HangupCause=BUSY"), noFit},
		{"POST the Dial's end", body(form + "&DialStatus=busy"), noFit},
		{"POST a first caller", body("From=14156667779&" + form), twice},
		{"POST a query", query("HangupCause=BUSY"), noFit},
		{"POST a caller in the query", query("From=14156667779"), twice},
		{"POST the form as query", both(body(""), query(form)), noFit},

		{"GET another nonce", set("X-Plivo-Signature-V3-Nonce", "1"), noFit},
		{"GET no nonce", set("X-Plivo-Signature-V3-Nonce", ""), missing},
		{"GET another account's signature", set("X-Plivo-Signature-V3", by("other")), noFit},
		{"GET a signature without token", set("X-Plivo-Signature-V3", by("")), noFit},
		{"GET empty signatures", set("X-Plivo-Signature-V3", ",,,"), noFit},
		{"POST no signature", unsigned, missing},
		{"POST the Dial's end, no signature", both(unsigned, body("DialStatus=completed")), missing},
		{"GET the call's end, no signature", both(unsigned, query("Event=Hangup")), missing},
		{"GET nothing at all", both(unsigned, query("")), missing},
		{"POST version 2", both(unsigned,
			set("X-Plivo-Signature-V2", v2, "X-Plivo-Signature-V2-Nonce", nonce)), missing},

		{"GET another scheme", set("X-Forwarded-Proto", "https"), "fit https://example.com/handleincoming/;"},
		{"GET another host", set("X-Forwarded-Host", "203-0-113-25.ngrok-free.app"),
			"fit http://203-0-113-25.ngrok-free.app/handleincoming/;"},
		{"GET another address", set("Host", "203.0.113.25:5000"),
			"fit http://203.0.113.25:5000/handleincoming/;"},
		{"GET a URL as host", both(query(changed),
			set("Host", "example.com/handleincoming/?"+form+"#")), malformed},
		{"GET a URL as forwarded host", both(query(changed),
			set("X-Forwarded-Host", "example.com/handleincoming/?"+form+"#")), malformed},
		{"GET a URL as scheme", both(query(changed),
			set("X-Forwarded-Proto", "http://example.com/handleincoming/?"+form+"#")), noFit},
		{"GET a number as host", set("Host", "14156667777"), malformed},
		{"GET a written number as host", set("Host", "(415)666-7777"), malformed},
		{"GET a user before the host", set("Host", "example.com@example.com"), malformed},
		{"GET a bad escape", set("Host", "%zz"), malformed},
		{"GET a bad port", set("Host", "example.com:%zz"), malformed},
		{"GET a bracket", set("Host", "["), malformed},
		{"GET no IPv6 address", set("Host", "[0]"), malformed},
		{"GET no host", set("Host", ""), malformed},
		{"GET two hosts", set("Host", "example.com,a"), malformed},
		{"GET a space in the host", set("X-Forwarded-Host", "a b"), malformed},
	} {
		s := newServer(t, sampleConfig).checkSignatures()
		r := get("/handleincoming/?" + form)
		if strings.HasPrefix(test.name, "POST") {
			r = post("/handleincoming/", form)
		}
		test.edit(signed(r, "http://example.com"))
		w := s.send(r)
		const answer = "Only Plivo may ask here, and this request has no valid signature. " +
			"The server's log says why.\n"
		if w.Code != 403 || w.Body.String() != answer {
			t.Errorf("%s: status %d: %s", test.name, w.Code, w.Body)
		}
		s.logsOneLine(test.reason)
		if !s.log.has("status=403 method=" + r.Method + " path=/handleincoming") {
			t.Errorf("%s: log: %s", test.name, s.log)
		}
	}
	s := newServer(t, sampleConfig).checkSignatures()
	s.send(signed(get("/handleincoming/?"+form), "https://example.com"))
	s.logsOneLine("call=" + callUUID +
		" reason=\"the signature does not fit http://example.com/handleincoming/; " +
		"compare that with the answer URL in Plivo's console: if they differ, set PUBLIC_URL to what the " +
		"console has before /handleincoming/; if not, PLIVO_AUTH_TOKEN is another account's, " +
		"or the request is forged\"")
}

func TestPublicURLIsChecked(t *testing.T) {
	for _, bad := range []string{
		"mask.example", "/", "ftp://mask.example", "https://", "https:///x", "https://a:b@mask.example",
		"https://mask.example?x", "https://mask.example/#", "https://mask.example/handleincoming/",
		"https://%zz", "https://:5000", "https://a:", "http://a:99999", "http://a:65536",
		"https://14156667777", "https://a b",
	} {
		_, err := ParsePublicURL(bad)
		if err == nil || !strings.Contains(err.Error(), "such as https://example.com") ||
			strings.Contains(err.Error(), "a:b") {
			t.Errorf("PUBLIC_URL %q: %v", bad, err)
		}
	}
	for given, want := range map[string]string{"": "", " ": "", "http://a:65535": "http://a:65535"} {
		if got, err := ParsePublicURL(given); got != want || err != nil {
			t.Errorf("PUBLIC_URL %q: %q, %v", given, got, err)
		}
	}
}

// A proxy that ends TLS and forwards, as in production, before the whole program with signatures on. Plivo
// calls the answer URL, and then the action of the Dial that it was told.
func TestSignatureThroughReverseProxy(t *testing.T) {
	const config = `{"call": {"noAnswerMessage": "No."}, "customerAgentMap": {"14156667777": "14156667778"}}`
	p := start(t, config, map[string]string{"PLIVO_AUTH_TOKEN": " " + token + "\n"})
	backend, err := url.Parse("http://" + p.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(backend)
		r.SetXForwarded()
	}})
	defer proxy.Close()
	send := func(r *http.Request, base string) (status int, answer string) {
		signed(r, base)
		r.RequestURI, r.Host = "", ""
		r.URL.Scheme, r.URL.Host = "https", strings.TrimPrefix(proxy.URL, "https://")
		response, err := proxy.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	action := proxy.URL + "/handleincoming/"
	dial := strings.Replace(fmt.Sprintf(connect, "14156667778"), "<Dial", `<Dial action="`+action+`"`, 1)
	for base, want := range map[string]int{proxy.URL: 200, "http://example.com": 403} {
		for _, r := range []*http.Request{
			get("/handleincoming/?" + form),
			post("/handleincoming/", form),
			post("/handleincoming/?a=b", form),
		} {
			if status, answer := send(r, base); status != want || status == 200 && answer != dial+"\n" {
				t.Errorf("%s %s signed for %s: %d %s", r.Method, r.URL, base, status, answer)
			}
		}
	}
	path := strings.TrimPrefix(action, proxy.URL)
	status, answer := send(post(path, form+"&DialStatus=no-answer"), proxy.URL)
	if status != 200 || answer != "<Response><Speak>No.</Speak></Response>\n" {
		t.Errorf("when the Dial had ended: %d %s", status, answer)
	}
	if !p.log.has("signatures_checked=true") {
		t.Errorf("log: %s", p.log)
	}
}

// ---- The process ----

func TestWithoutTokenOnlyLocalhostIsServed(t *testing.T) {
	for value, want := range map[string]string{
		" \n": `address=127\.0\.0\.1:.*signatures_checked=false\n` +
			`.*level=WARN msg="PLIVO_AUTH_TOKEN is not set.* or proxy on this machine passes everyone on`,
		token: `address=(\[::\]|0\.0\.0\.0):.*signatures_checked=true\n$`, // the latter without IPv6
	} {
		p := start(t, sampleConfig, map[string]string{"PLIVO_AUTH_TOKEN": value})
		waitUntil(t, p.log, func() bool { return regexp.MustCompile(want).MatchString(p.log.String()) })
	}
}

func TestExitStatusAndOutput(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good": sampleConfig,
		"bad":  "{\"customerAgentMap\": {\n\"14156667777\": 5}}",
		"one":  `{"customerAgentMap": {"14156667777": "14156667778"}}`,
	} {
		write(t, filepath.Join(dir, name+".json"), text)
	}
	t.Chdir(dir)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())
	const (
		badAgent = "bad.json:2: the agent must be one phone number in quotes"
		badPort  = "PORT in the environment must be a number from 1 to 65535: correct or unset it\n"
		inUse    = ": set PORT to another port, above 1023, " +
			"or stop the program that has this one (on macOS often AirPlay Receiver)\n"
		noToken = "PUBLIC_URL is set, but PLIVO_AUTH_TOKEN is not, so anyone could ask who is paired"
	)
	for _, test := range []struct {
		args, env      string
		status         int
		stdout, stderr string // stderr: part of it; "" for nothing at all
	}{
		{"-check -config good.json", "PORT=x", 0, "good.json: ok, 2 pairings\n", ""},
		{"-check -config one.json", "", 0, "one.json: ok, 1 pairing\n", ""},
		{"-check -config bad.json", "", 1, "", badAgent},
		{"-config bad.json", "", 1, "", badAgent},
		{"-config none.json", "", 1, "", "none.json: "},
		{"-config none.json", "", 1, "", ": put a file there that can be read, or name another with -config"},
		{"-config .", "", 1, "", ". is not a regular file: put a file there"},
		{"-config good.json", "PORT=http", 1, "", badPort},
		{"-config good.json", "PORT=0", 1, "", badPort},
		{"-config good.json", "PORT=65536", 1, "", badPort},
		{"-config good.json", "PORT=" + takenPort, 1, "", "cannot start: listen tcp"},
		{"-config good.json", "PORT=" + takenPort, 1, "", inUse},
		{"-config good.json", "PUBLIC_URL=x", 1, "", "PUBLIC_URL must be"},
		{"-config good.json", "PUBLIC_URL=https://a PLIVO_AUTH_TOKEN= PLIVO_AUTHTOKEN=t", 1, "", noToken},
		{"-h", "", 0, "", "Usage: number-masking"},
		{"-chekc", "", 2, "", "not defined: -chekc\nUsage: number-masking"},
		{"good.json", "", 2, "", "use -config"},
	} {
		var stdout, stderr logBuffer
		env := map[string]string{"PLIVO_AUTH_TOKEN": token}
		for setting := range strings.FieldsSeq(test.env) {
			name, value, _ := strings.Cut(setting, "=")
			env[name] = value
		}
		getenv := func(name string) string { return env[name] }
		ctx, cancel := context.WithTimeout(t.Context(), patience) // or one that starts would not end
		status := run(ctx, strings.Fields(test.args), getenv, &stdout, &stderr)
		cancel()
		if status != test.status || stdout.String() != test.stdout {
			t.Errorf("%s %s: exit status %d, output %q; want %d, %q",
				test.env, test.args, status, &stdout, test.status, test.stdout)
		}
		if !stderr.has(test.stderr) || test.stderr == "" && stderr.String() != "" {
			t.Errorf("%s %s: error output %q, want %q", test.env, test.args, &stderr, test.stderr)
		}
		noNumbers(t, "the error output", stderr.String())
	}
}

func TestWhatIsNoRegularFileIsRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	makeFIFO(t, fifo)
	for _, path := range []string{fifo, "/dev/zero", t.TempDir()} {
		_, err := (&ConfigFile{path: path}).Load()
		if !strings.Contains(fmt.Sprint(err), path+" is not a regular file: put") {
			t.Error(err)
		}
	}
}

func TestTwoAtOnceStartAnswerAndStop(t *testing.T) {
	one := start(t, sampleConfig, nil)
	other := start(t, `{"customerAgentMap": {"14156667777": "14156660001"}}`, nil)
	one.waitForAgent(t, "14156667778")
	other.waitForAgent(t, "14156660001")
	for _, p := range []*process{one, other} {
		p.stop(t)
		if conn, err := net.Dial("tcp", p.addr); err == nil {
			conn.Close()
			t.Error("still listens after it stopped")
		}
		if !strings.HasSuffix(p.log.String(), "msg=stopped\n") {
			t.Errorf("log: %s", p.log)
		}
	}
}

func TestRequestInFlightIsAnsweredDuringShutdown(t *testing.T) {
	p := start(t, sampleConfig, nil)
	conn := p.dial(t)
	fmt.Fprintf(conn, "POST /handleincoming/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", len(form))
	reader := bufio.NewReader(conn)
	if line, err := reader.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("the request was not begun: %q, %v", line, err)
	}
	_, _ = reader.ReadString('\n')
	p.signal(os.Interrupt)
	p.log.waitFor(t, "msg=\"stopping")
	fmt.Fprint(conn, form)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	sameXML(t, string(body), fmt.Sprintf(connect, "14156667778"))
	p.stop(t)
}

// Also if SIGHUP comes soon after, as systemd's SendSIGHUP=yes and the end of a session send it.
func TestSignalsStopTheBinary(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for pause := range 6 {
			p := startBinary(t, "config.json", nil)
			p.call(t, 100) // so that lines of the log are still to be written
			p.signal(signal)
			time.Sleep(time.Duration(pause) * time.Millisecond)
			p.signal(syscall.SIGHUP)
			if status := p.wait(t); status != 0 || !strings.HasSuffix(p.log.String(), "msg=stopped\n") {
				t.Errorf("%s, then SIGHUP after %d ms: exit status %d; log: %s", signal, pause, status, p.log)
			}
		}
	}
}

// ---- Its log ----

// What a test of a log has in common: a binary whose log goes to a pipe is called some times and stopped,
// and must then exit with 0. meanwhile is told each stage: "started", "called" and "stopped".
func logToPipe(t *testing.T, calls int, meanwhile func(stage string, p *process, reader *os.File)) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, string(manyPairings(10_000)))
	p := startBinary(t, path, writer)
	writer.Close() // here; the binary has its own
	meanwhile("started", p, reader)
	p.call(t, calls)
	meanwhile("called", p, reader)
	p.signal(syscall.SIGTERM)
	meanwhile("stopped", p, reader)
	if status := p.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// Nobody reads the log, so the pipe that it goes to fills up; then somebody does.
func TestStalledLogStopsNoCall(t *testing.T) {
	const calls = 20_000 // more than the queue and the pipe hold
	var log logBuffer
	read := make(chan struct{})
	logToPipe(t, calls, func(stage string, p *process, reader *os.File) {
		switch stage {
		case "called":
			go func() {
				defer close(read)
				_, _ = io.Copy(&log, reader)
			}()
			log.waitFor(t, `msg="log lines dropped"`)
			p.call(t, 1)
		case "stopped":
			<-read
		}
	})
	log.accountsFor(t, calls+1)
	if !log.has("log lines dropped") || !strings.HasSuffix(log.String(), "msg=stopped\n") {
		t.Errorf("log ends with %.200s", log.String()[max(0, len(log.String())-200):])
	}
}

// A log that is read slowly is written to its end all the same.
func TestSlowlyReadLogIsWrittenToItsEnd(t *testing.T) {
	const calls = 3000
	var log logBuffer
	logToPipe(t, calls, func(stage string, p *process, reader *os.File) {
		if stage != "stopped" {
			return
		}
		for chunk := make([]byte, 4<<10); ; time.Sleep(20 * time.Millisecond) { // it is this that is slow
			n, err := reader.Read(chunk)
			_, _ = log.Write(chunk[:n])
			if err != nil {
				return
			}
		}
	})
	log.accountsFor(t, calls)
	if log.has("dropped") || !strings.HasSuffix(log.String(), "msg=stopped\n") {
		t.Errorf("log: %s", log.String())
	}
}

// A SIGHUP that comes while the last lines wait for the log's reader does not end the program before them.
// What one before the signal to stop has begun to load is logged before the last line.
func TestHangupWhileTheLogIsWritten(t *testing.T) {
	const calls = 1000 // more than the pipe holds
	var log logBuffer
	logToPipe(t, calls, func(stage string, p *process, reader *os.File) {
		if stage == "called" {
			p.signal(syscall.SIGHUP)
		}
		if stage != "stopped" {
			return
		}
		waitUntil(t, p.log, func() bool {
			conn, err := net.Dial("tcp", p.addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		for range 20 {
			p.signal(syscall.SIGHUP)
			time.Sleep(time.Millisecond)
		}
		_, _ = io.Copy(&log, reader)
	})
	log.accountsFor(t, calls)
	if !strings.HasSuffix(log.String(), "msg=stopped\n") {
		t.Errorf("log: %s", log.String())
	}
}

// A log that stays stalled holds up no signal either.
func TestStalledLogStopsNoSignal(t *testing.T) {
	logToPipe(t, 1000, func(string, *process, *os.File) {})
}

// As with 2>&1 | head -1: the log's reader leaves, and a write would raise SIGPIPE.
func TestGoneLogReaderStopsNoCall(t *testing.T) {
	logToPipe(t, 100, func(stage string, p *process, reader *os.File) { reader.Close() })
}

// A disk that is full for a while takes a part of a line, and then none. When there is room again, the next
// line begins on its own, and the log says how many are missing.
func TestFullDiskCostsOnlyLines(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("no shell with ulimit")
	}
	path := filepath.Join(t.TempDir(), "log")
	p := startWith(t, "config.json", nil, func(p *process, env []string) {
		p.startCommand(t, env, nil, shell, "-c", `ulimit -f 8 && exec "$0" -config "$1" 2>>"$2"`,
			binary(t), p.path, path)
	})
	read := func() string {
		text, _ := os.ReadFile(path)
		return string(text)
	}
	const calls = 35 // some 20 fill the disk; when it is emptied, the others fit
	p.call(t, calls)
	waitUntil(t, p.log, func() bool { return len(read()) == 4096 })
	before := read()
	if err := os.Truncate(path, 0); err != nil { // makes room for the next
		t.Fatal(err)
	}
	p.call(t, 1)
	waitUntil(t, p.log, func() bool { return accounted(before+read()) == calls+1 })
	after := read()
	want := `^\n(time=.* msg=dialling .*\n|level=WARN msg="log lines dropped" .*\n)+$`
	if strings.HasSuffix(before, "\n") { // the disk was full just at the end of a line
		want = strings.Replace(want, `\n`, "", 1)
	}
	if !regexp.MustCompile(want).MatchString(after) {
		t.Errorf("after the disk was full: %s", after)
	}
}

// Each line that is not written whole is counted, as soon as that can be said; what follows half a line
// begins on its own.
func TestLogSaysHowManyLinesFailed(t *testing.T) {
	const notice = "level=WARN msg=\"log lines dropped\" lines="
	for _, test := range []struct {
		name  string
		takes []int // bytes of each write, from the first; of those after them, all
		lines int
		want  string
	}{
		{"nothing fails", nil, 2, "line 1\nline 2\n"},
		{"none of two lines, nor a notice", []int{0, 0, 0, 0}, 3, "line 3\n" + notice + "2\n"},
		{"half a line", []int{3}, 2, "lin\n" + notice + "1\nline 2\n"},
		{"half a line, half a notice", []int{3, 9, 0}, 3, "lin\nlevel=WA\n" + notice + "2\nline 3\n"},
		{"half a line, then nothing", []int{3, 0, 0, 0}, 3, "lin\nline 3\n" + notice + "2\n"},
		{"a line break only", []int{3, 1, 0}, 3, "lin\n" + notice + "2\nline 3\n"},
		{"all but the line break", []int{6}, 2, "line 1\nline 2\n"},
		{"the last line", []int{7, 0}, 2, "line 1\n" + notice + "1\n"},
		{"half the last line", []int{7, 3}, 2, "line 1\nlin\n" + notice + "1\n"},
	} {
		w := &fullWriter{takes: test.takes}
		q := startQueue(w)
		for i := range test.lines {
			fmt.Fprintf(q, "line %d\n", i+1)
		}
		q.flush()
		if got := w.String(); got != test.want {
			t.Errorf("%s: log\n%s\nwant\n%s", test.name, got, test.want)
		}
		fmt.Fprintln(q, "after the end")
	}
}

func startQueue(w io.Writer) *logQueue {
	q := &logQueue{lines: make(chan []byte, 1<<14)}
	go q.writeTo(w)
	return q
}

// A fullWriter takes only so many bytes of each write.
type fullWriter struct {
	logBuffer
	takes []int
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(w.takes) == 0 {
		return w.logBuffer.Write(p)
	}
	n := w.takes[0]
	w.takes = w.takes[1:]
	_, _ = w.logBuffer.Write(p[:n])
	return n, syscall.ENOSPC
}

// ---- Edits of config.json while calls come in ----

// As Kubernetes mounts a ConfigMap, config.json leads through ..data, which is switched from one folder to
// the next. The steps edit it in each way that there is; after each, the customer's agent is told, or why
// the pairings before stay in force.
func TestEditsTakeEffectWhileCallsComeIn(t *testing.T) {
	t.Parallel()
	t0 := time.Now().Add(-time.Hour)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	path := in("config.json")
	paired := func(agent string) string {
		return "{\n\"customerAgentMap\": {\n" +
			"\"14156667777\": \"" + agent + "\",\n\"14156667779\": \"14156667780\"\n}}\n"
	}
	folder := func(name, agent string) {
		if err := os.Mkdir(in(name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, in(name+"/config.json"), paired(agent))
	}
	folder("..v1", "14156660001")
	folder("..v2", "14156660002")
	err := errors.Join(os.Symlink("..v1", in("..data")), os.Symlink("..data/config.json", path))
	if err != nil {
		t.Skip(err) // Windows asks for a privilege
	}
	p := startOn(t, path)
	stopCalls := p.keepCalling(t)
	p.waitForAgent(t, "14156660001")
	agent := "14156660001"
	for _, step := range []struct {
		name  string
		edit  func() error
		agent string // who is rung then, the same as before if ""
		log   string // then says
	}{
		{"switch the symlink", func() error {
			return errors.Join(os.Symlink("..v2", in("..new")), os.Rename(in("..new"), in("..data")))
		}, "14156660002", ""},
		{"in place, through the links, as long and as old as before", func() error {
			info, err := os.Stat(path)
			write(t, path, paired("14156660003"))
			return errors.Join(err, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, "14156660003", ""},
		{"rename an older file", func() error {
			write(t, in("new"), paired("14156660004"))
			return errors.Join(os.Chtimes(in("new"), t0, t0), os.Rename(in("new"), path))
		}, "14156660004", ""},
		{"half of it, for long enough to be tried", func() error {
			write(t, path, paired("14156660005")[:60])
			return nil
		}, "", "config.json:4:7: the file ends too early"},
		{"all of it", func() error {
			write(t, path, paired("14156660005"))
			return nil
		}, "14156660005", ""},
		{"an agent twice", func() error {
			write(t, path, strings.ReplaceAll(paired("14156660006"), "14156667780", "14156660006"))
			return nil
		}, "", "config.json:4: the agent is already the agent of the pairing in line 3"},
		{"move it away", func() error { return os.Rename(path, in("away")) }, "", "no such file"},
		{"a FIFO", func() error { makeFIFO(t, path); return nil }, "", "is not a regular file"},
		{"far too large", func() error {
			write(t, in("huge"), "")
			return errors.Join(os.Truncate(in("huge"), 3<<30), os.Rename(in("huge"), path))
		}, "", "is larger than 256 MB"},
		{"a good one", func() error {
			write(t, in("new"), paired("14156660007"))
			return os.Rename(in("new"), path)
		}, "14156660007", ""},
		{"a pairing less", func() error {
			write(t, path, `{"app": {"port": 1}, "customerAgentMap": {"14156667779": "14156667780"}}`)
			return nil
		}, "nobody", "app.port has changed: restart to use it"},
	} {
		if err := step.edit(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		p.log.waitFor(t, step.log)
		agent = cmp.Or(step.agent, agent)
		p.waitForAgent(t, agent)
		if n := strings.Count(p.log.String(), step.log); step.log != "" && n != 1 {
			t.Errorf("%s: %q is logged %d times", step.name, step.log, n)
		}
	}
	sameXML(t, p.get(t, "/handleincoming/?From=14156660007&To="+plivoNumber), rejected)
	other := fmt.Sprintf(connect, "14156667780")
	sameXML(t, p.get(t, "/handleincoming/?From=14156667779&To="+plivoNumber), other)
	if calls := stopCalls(); calls == 0 {
		t.Error("no call was made meanwhile")
	}
	for _, loaded := range []string{
		`msg="config loaded" pairings=2`, `msg="config loaded" pairings=1`,
		"config not loaded; the pairings loaded before stay in force",
	} {
		if !p.log.has(loaded) {
			t.Errorf("not in the log: %s", loaded)
		}
	}
}

// Only a port that is neither the one before nor the one in use needs a restart.
func TestChangedPortIsToldOnce(t *testing.T) {
	t.Parallel()
	p := start(t, `{"app": {"port": 1}, "customerAgentMap": {}}`, nil)
	_, inUse, _ := net.SplitHostPort(p.addr)
	for i, step := range []struct {
		port  string
		warns int // so far
	}{{inUse, 0}, {"6000", 1}, {inUse, 1}, {"6000", 2}, {"6000 ", 2}, {"6001", 3}, {inUse, 3}} {
		write(t, p.path, `{"app": {"port": `+step.port+`}, "customerAgentMap": {}}`)
		p.log.waitForCount(t, `msg="config loaded"`, i+1)
		if warns := strings.Count(p.log.String(), "app.port has changed: restart"); warns != step.warns {
			t.Errorf("step %d: %d warnings; log: %s", i, warns, p.log)
		}
	}
}

// SIGHUP loads what is there, and says what is wrong with it to whoever asks again.
func TestHangupSignalLoadsAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, "{\"customerAgentMap\": {}}")
	p := startBinary(t, path, nil)
	for i := range 3 {
		p.signal(syscall.SIGHUP)
		p.log.waitForCount(t, `msg="config loaded"`, i+1)
	}
	write(t, path, "{")
	p.log.waitFor(t, "too early")
	p.signal(syscall.SIGHUP)
	p.log.waitForCount(t, "too early", 2)
	p.get(t, "/healthz")
}

// keepCalling makes calls until the function that it returns is called, which returns how many; each must
// be answered with XML.
func (p *process) keepCalling(t testing.TB) (stop func() int) {
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
			response, err := http.Get("http://" + p.addr + "/handleincoming/?" + form)
			if err != nil {
				t.Errorf("call %d: %v", calls, err)
				return
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			_, notXML := parseXML(string(body))
			if err != nil || response.StatusCode != 200 || notXML != nil {
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

// ---- Hostile requests ----

func TestSlowHugeAndBrokenRequests(t *testing.T) {
	t.Parallel()
	p := start(t, sampleConfig, nil)
	raw := func(request string) net.Conn {
		t.Helper()
		conn := p.dial(t)
		_, _ = io.WriteString(conn, request) // the server may close before it has read all
		return conn
	}
	const (
		get  = "GET /handleincoming/ HTTP/1.1\r\nHost: x\r\n"
		post = "POST /handleincoming/ HTTP/1.1\r\nHost: x\r\n" +
			"Content-Type: application/x-www-form-urlencoded\r\n"
		call = "GET /handleincoming/?From=14156667777&To=14155550100 HTTP/1.1\r\n"
	)
	long := strings.Repeat("a", 65<<10)
	var slow []net.Conn
	for i := range 300 {
		begun := []string{"", "GET /handleinc", get + "A: ", post + "Content-Length: 100\r\n\r\nFrom=1415"}
		slow = append(slow, raw(begun[i%4]))
	}
	p.call(t, 20)
	for _, test := range []struct{ name, request, status string }{
		{"rubbish", "\x00\xff\r\n\r\n", "400"},
		{"no method", "\r\n\r\n\r\n", "400"},
		{"two hosts", get + "Host: b\r\n\r\n", "400"},
		{"no host", "GET /handleincoming/ HTTP/1.1\r\n\r\n", "400"},
		{"host %zz", call + "Host: %zz\r\n\r\n", "200"},
		{"huge header", get + "A: " + long + "\r\n\r\n", "431"},
		{"huge URL", "GET /handleincoming/?" + long + " HTTP/1.1\r\nHost: x\r\n\r\n", "431"},
		{"huge form", post + "Content-Length: 1000000000\r\n\r\n" + long, "413"},
		{"huge chunk", post + "Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + long, "413"},
		{"broken chunk", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		{"negative length", post + "Content-Length: -1\r\n\r\n", "400"},
		{"asks for everything", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
	} {
		response, err := http.ReadResponse(bufio.NewReader(raw(test.request)), nil)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if !strings.HasPrefix(response.Status, test.status) {
			t.Errorf("%s: %s, want %s", test.name, response.Status, test.status)
		}
	}
	p.call(t, 1)
	for i, conn := range slow { // the server's time-outs end each of them
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err != nil {
			t.Fatalf("slow client %d: %v, %q", i, err, answer)
		}
	}
	p.call(t, 1)
	if p.log.has("panic") {
		t.Errorf("log: %s", p.log)
	}
}

// ---- Fuzz targets ----

func FuzzNumber(f *testing.F) {
	for _, seed := range []string{
		"14156667777", "+1 (415) 666-7777", "0123", "+", "1234567890123456", "sip:a@b",
		"１２３４５６７",
		"+44 (0)20 7946 0018", "4930901820.0", "4930901820.00", "1.41567E+10", "123 456 789 01",
		"33.1.42.68.53.00",
	} {
		f.Add(seed)
	}
	wellFormed := regexp.MustCompile(`^(1[0-9]{10}|[2-9][0-9]{6,14})$`)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseNumber(text)
		if err != nil {
			if n != (Number{}) {
				t.Errorf("%q: %v, %v", text, n, err)
			}
			noNumbers(t, "the error", err.Error())
			return
		}
		digits := regexp.MustCompile("[^0-9]").ReplaceAllString(text, "")
		compact := strings.ReplaceAll(text, " ", "")
		if n.Digits() != digits || !wellFormed.MatchString(digits) || strings.Contains(text, "(0") ||
			strings.HasSuffix(compact, ".0") || regexp.MustCompile(`^[^.]*\.0+$`).MatchString(compact) {
			t.Errorf("%q is read as %q", text, n.Digits())
		}
		if again, err := ParseNumber(n.Digits()); again != n || err != nil {
			t.Errorf("%q does not read back: %v", n.Digits(), err)
		}
		masked := strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]
		if fmt.Sprintf("%d", n) != masked || n.String() != masked {
			t.Errorf("%q prints as %d", digits, n)
		}
	})
}

func FuzzConfig(f *testing.F) {
	for test := range strings.SplitSeq(badConfigs, "\n----\n") {
		text, _, _ := strings.Cut(test, "\n! ")
		f.Add([]byte(text))
	}
	for _, seed := range []string{
		sampleConfig, `{"x": [{"y": null}], "app": 1e9}`, "[", "{\n// 14156667777",
		`{"a":"\`, `{"a":"\u12`, `{"a":nul`,
		`{"plivoNumbers": {"14155550101": {"14156660003": "14156660001"}, "14155550102": {}},
			"call": {"ringTimeout": 1, "connectingMessage": "a", "language": "de-DE"}}`,
	} {
		f.Add([]byte(seed))
	}
	problem := regexp.MustCompile(
		`^config\.json:([0-9]+)(:[0-9]+)?: .|^config\.json: [0-9]+ more problems? like these$`)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := allocated()
		config, err := ParseConfig("config.json", data)
		if grown := allocated() - before; grown > 1<<20+uint64(memoryPerByte*len(data)) {
			t.Errorf("%d bytes took %d bytes of memory", len(data), grown)
		}
		if err == nil {
			checkUnambiguous(t, config)
			return
		}
		if config != nil {
			t.Error("a config beside an error")
		}
		noNumbers(t, "the message", err.Error())
		for line := range strings.SplitSeq(err.Error(), "\n") {
			match := problem.FindStringSubmatch(line)
			if match == nil {
				t.Fatalf("not a problem with its line: %q", line)
			}
			if n, _ := strconv.Atoi(match[1]); n > 1+bytes.Count(data, []byte("\n")) {
				t.Errorf("there is no such line: %q", line)
			}
		}
		if _, again := ParseConfig("config.json", data); again.Error() != err.Error() {
			t.Errorf("said to be\n%v\nand then\n%v", err, again)
		}
	})
}

// checkUnambiguous checks that each party leads to one other, which leads back, and to no Plivo number.
func checkUnambiguous(t testing.TB, config *Config) {
	t.Helper()
	entries := 0
	check := func(lookup Lookup) {
		entries += len(lookup)
		for caller, pairing := range lookup {
			back := lookup[pairing.Peer]
			_, listed := config.Serving(caller)
			if listed || back.Peer != caller || back.byAgent == pairing.byAgent || pairing.Peer == caller {
				t.Errorf("%s %s leads to %s, which is %s to %s", pairing.Caller(), caller.Digits(),
					pairing.Peer.Digits(), back.Caller(), back.Peer.Digits())
			}
		}
	}
	check(config.customerAgentMap)
	for number, lookup := range config.plivoNumbers {
		serving, listed := config.Serving(number)
		if !listed || lookup == nil || !reflect.DeepEqual(serving, lookup) {
			t.Errorf("%s is not served by its own pairings", number.Digits())
		}
		check(lookup)
	}
	if config.Port < 1 || config.Port > 65535 || 2*config.Pairings != entries {
		t.Errorf("port %d, %d pairings", config.Port, config.Pairings)
	}
}

func FuzzAnswer(f *testing.F) {
	const text = `{
		"customerAgentMap": {"14156667777": "14156667778"},
		"plivoNumbers": {"14155550100": {"14156667777": "14156667779"}},
		"call": {"unknownCallerMessage": "<?>", "connectingMessage": "&", "noAnswerMessage": "'",
			"language": "de-DE", "ringTimeout": 30, "timeLimit": 60}}`
	config := parse(f, text)
	f.Add(true, "From=14156667777&To=14155550100", "", "example.com")
	f.Add(true, "From=14156667777&To=14155550101", "", "example.com")
	f.Add(false, "", "From=14156667778&To=%2B14155550100&CallUUID=1", "%zz")
	f.Add(false, "a=b", "From=14156667777&To=14156667778", "")
	f.Add(true, "Event=Hangup&HangupCause=X&Duration=14156667777", "", "a/b")
	f.Add(true, "HangupCause=X%0066777", "", "a%1fb")
	f.Add(false, strings.Repeat("a=&", 200), strings.Repeat("b=&", 200), "14156667777")
	f.Add(false, "", "From=14156667777&To=14155550100&DialStatus=busy&DialHangupCause=14156667777", "[::1]:1")
	f.Add(true, "", "", "[0]")
	f.Add(true, "From=14156667777&To=14155550100", "", "example.com,a")
	f.Add(true, "DialStatus&From=14156667777&To=14155550100", "", "203.0.113.25:5000")
	f.Fuzz(func(t *testing.T, isGet bool, query, form, host string) {
		request := func() *http.Request {
			r := post("/handleincoming/", form)
			if isGet {
				r = get("/handleincoming/")
			}
			r.URL.RawQuery, r.Host = query, host
			return r
		}
		s := newServer(t, text).checkSignatures()
		forged := header(request(), "X-Plivo-Signature-V3", "x", "X-Plivo-Signature-V3-Nonce", "x")
		before := allocated()
		if w := s.send(forged); w.Code != 403 && w.Code != 400 && w.Code != 413 {
			t.Errorf("without a signature: status %d", w.Code)
		}
		if grown := allocated() - before; grown > 1<<20+uint64(200*(len(query)+len(form))) {
			t.Errorf("to refuse %d bytes took %d bytes of memory", len(query)+len(form), grown)
		}

		s = newServer(t, text)
		r := request()
		w := s.send(r)
		called, _ := ParseNumber(r.Form.Get("To"))
		caller, _ := ParseNumber(r.Form.Get("From"))
		pairings, _ := config.Serving(called)
		peer := pairings[caller].Peer
		if r.Form.Has("DialStatus") {
			peer = Number{} // so that there must be no Dial
		}
		checkAnswer(t, w, called, peer, "http://"+host+"/handleincoming/")
	})
}

func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// checkAnswer checks what must hold of every answer: a Dial has the Plivo number that was called as its
// callerId and callerName, one number to dial, which is the caller's peer, and that action; no other number
// stands anywhere.
func checkAnswer(t testing.TB, w *httptest.ResponseRecorder, called, peer Number, action string) {
	t.Helper()
	if w.Code == 400 || w.Code == 413 {
		return // send has searched the text for numbers
	}
	response, err := parseXML(w.Body.String())
	if err != nil || w.Code != 200 || response.XMLName.Local != "Response" {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	dials := 0
	for _, child := range response.Children {
		if child.XMLName.Local != "Dial" {
			continue
		}
		dials++
		got := map[string]string{}
		for _, attr := range child.Attrs {
			got[attr.Name.Local] = attr.Value
		}
		want := []element{{XMLName: xml.Name{Local: "Number"}, Text: peer.Digits()}}
		if got["callerId"] != called.Digits() || got["callerName"] != called.Digits() ||
			got["action"] != action || !reflect.DeepEqual(child.Children, want) ||
			peer == (Number{}) || called == peer {
			t.Errorf("called %s, to dial %s: %s", called.Digits(), peer.Digits(), w.Body)
		}
	}
	text := strings.ReplaceAll(w.Body.String(), action, "") // its host may have digits
	if dials > 1 || len(longDigits.FindAllString(text, -1)) != 3*dials {
		t.Errorf("numbers that have no place in an answer: %s", w.Body)
	}
}

// ---- Benchmarks ----

// The request is as Plivo sends it, by GET so that wrk can send the same.
const benchQuery = "CallStatus=ringing&CallUUID=" + callUUID + "&Direction=inbound&Event=StartApp" +
	"&From=14156667777&To=" + plivoNumber

var benchAnswer = fmt.Sprintf(connect, "14156667778") + "\n"

// Through the full handler, the log line included, without a connection.
func BenchmarkAnswer(b *testing.B) {
	for _, name := range []string{"unsigned", "signed"} {
		b.Run(name, func(b *testing.B) {
			h := benchHandler(b, name)
			r := signed(get("/handleincoming/?"+benchQuery), "http://example.com")
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

// Over keep-alive connections on loopback, beside a bare handler that writes the same bytes.
func BenchmarkLoopback(b *testing.B) {
	for _, name := range []string{"bare", "unsigned", "signed"} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(benchHandler(b, name))
			defer server.Close()
			var request bytes.Buffer
			r := httptest.NewRequest("GET", server.URL+"/handleincoming/?"+benchQuery, nil)
			signed(r, server.URL)
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
					n, err := conn.Read(answer)
					if err != nil || !bytes.HasSuffix(answer[:n], []byte(benchAnswer)) {
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
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	log := startQueue(file)
	b.Cleanup(func() {
		log.flush()
		file.Close()
	})
	config := parse(b, sampleConfig)
	h := &Handler{config: func() *Config { return config }, log: slog.New(slog.NewTextHandler(log, nil))}
	if name == "signed" {
		h.token = token
	}
	return h
}

// manyPairings returns a config with n pairings and that of 14156667777, about 33 bytes each.
func manyPairings(n int) []byte {
	data := []byte("{\n\"customerAgentMap\": {\n\"14156667777\": \"14156667778\"")
	for i := range n {
		data = fmt.Appendf(data, ",\n\"1415%07d\": \"1628%07d\"", i, i)
	}
	return append(data, "\n}}\n"...)
}

func BenchmarkMillion(b *testing.B) {
	data := manyPairings(1_000_000)
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseConfig("config.json", data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("look", func(b *testing.B) {
		file := &ConfigFile{path: filepath.Join(b.TempDir(), "config.json")}
		write(b, file.path, string(data))
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			file.Edited()
		}
	})
	b.Run("lookup", func(b *testing.B) {
		config := parse(b, string(data))
		callers := make([]Number, 1000)
		for i := range callers {
			callers[i] = number(b, fmt.Sprintf("1415%07d", i*999))
		}
		called := number(b, plivoNumber)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			pairings, _ := config.Serving(called)
			if _, ok := pairings[callers[i%len(callers)]]; !ok {
				b.Fatal("not found")
			}
		}
	})
}

// ---- The README ----

// The README's examples of config.json are good. Every command that is shown with what it prints, run as
// written but for the port, prints that; so does the recipe to sign a request, with the server that it asks
// for.
func TestReadme(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	text, err1 := os.ReadFile("README.md")
	shipped, err2 := os.ReadFile("config.json")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	write(t, path, string(shipped))
	open := startOn(t, path)
	signing := start(t, string(shipped), map[string]string{"PLIVO_AUTH_TOKEN": "test"})
	shell := func(command string, p *process) string {
		here := strings.NewReplacer("localhost:5000", p.addr, "bin/number-masking", binary(t))
		var stdout, stderr bytes.Buffer // curl shows its progress in the latter, and -check what is wrong
		shell := exec.Command("sh", "-c", here.Replace(command))
		shell.Dir, shell.Stdout, shell.Stderr = dir, &stdout, &stderr
		_ = shell.Run() // 1 for a bad file
		return cmp.Or(stdout.String(), stderr.String())
	}
	tried := map[string]int{}
	for _, block := range regexp.MustCompile("(?s)```([a-z]*)\n(.*?)```").FindAllSubmatch(text, -1) {
		language, block := string(block[1]), string(block[2])
		switch {
		case language == "json":
			parse(t, block)
		case language == "console":
			for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
				command, want, _ := strings.Cut(part, "\n")
				if file, ok := strings.CutPrefix(command, "cat "); ok {
					write(t, filepath.Join(dir, file), want)
				} else if got := shell(command, open); strings.TrimSpace(got) != strings.TrimSpace(want) {
					t.Errorf("%s\nprints: %s\nREADME: %s", command, got, want)
				}
				tried["command"]++
			}
		case strings.Contains(block, "openssl dgst"):
			language = "signing"
			got, want := shell(block, signing), fmt.Sprintf(connect, "14156667778")+"\n"
			if !strings.HasSuffix(got, want) {
				t.Errorf("the signed request is answered: %s; log: %s", got, signing.log)
			}
		}
		tried[language]++
	}
	if tried["json"] == 0 || tried["command"] < 5 || tried["signing"] != 1 {
		t.Errorf("found only %v", tried)
	}
}

// ---- What the tests share ----

var longDigits = regexp.MustCompile(`[0-9]{7,}`)

// noNumbers reports phone numbers in a text, also such as are written as people do, and the auth token. What
// has the shape of a time, an address, a path to a test's file or a UUID is no phone number.
func noNumbers(t testing.TB, where, text string) {
	t.Helper()
	others := regexp.MustCompile(`\b(time|took|address)=\S+|https?://[^ ;]+|/\S*\.json|/\S+/fifo|` +
		`[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}`)
	cleaned := others.ReplaceAllString(text, "")
	shown := regexp.MustCompile(`[0-9](?:[ .()/_–-]*[0-9]){6,}`).FindString(cleaned)
	if shown != "" || strings.Contains(text, token) {
		t.Errorf("%s shows %q or the token: %s", where, shown, text)
	}
}

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

// makeFIFO skips the test where there is no such thing.
func makeFIFO(t testing.TB, path string) {
	t.Helper()
	if out, err := exec.Command("mkfifo", path).CombinedOutput(); err != nil {
		t.Skipf("mkfifo: %v: %s", err, out)
	}
}

func get(path string) *http.Request { return httptest.NewRequest("GET", path, nil) }

func post(path, form string) *http.Request {
	r := httptest.NewRequest("POST", path, strings.NewReader(form))
	return header(r, "Content-Type", "application/x-www-form-urlencoded")
}

// header sets headers of r, each a name and a value, and returns r.
func header(r *http.Request, pairs ...string) *http.Request {
	for pair := range slices.Chunk(pairs, 2) {
		r.Header.Set(pair[0], pair[1])
		if pair[0] == "Host" {
			r.Host = pair[1]
		}
	}
	return r
}

// A server is the handler, and its log, which is searched for numbers in the end.
type server struct {
	t       testing.TB
	handler *Handler
	log     *logBuffer
}

func newServer(t testing.TB, text string) *server {
	config, log := parse(t, text), new(logBuffer)
	t.Cleanup(func() { noNumbers(t, "the log", log.String()) })
	handler := &Handler{log: slog.New(slog.NewTextHandler(log, nil))}
	handler.config = func() *Config { return config }
	return &server{t, handler, log}
}

func (s *server) checkSignatures() *server {
	s.handler.token = token
	return s
}

func (s *server) publicURL(t testing.TB, text string) *server {
	var err error
	if s.handler.publicURL, err = ParsePublicURL(text); err != nil {
		t.Fatal(err)
	}
	return s
}

// send checks what holds of every answer: it ends with a newline, and a refusal shows no number.
func (s *server) send(r *http.Request) *httptest.ResponseRecorder {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code != 200 {
		noNumbers(s.t, "the refusal", w.Body.String())
	}
	if r.Method != "HEAD" && !strings.HasSuffix(w.Body.String(), "\n") {
		s.t.Errorf("no newline ends the answer %q", w.Body)
	}
	return w
}

// logsOneLine checks that the only request so far has left one line in the log, and a part of it.
func (s *server) logsOneLine(part string) {
	s.t.Helper()
	if got := s.log.String(); !strings.Contains(got, part) || strings.Count(got, "\n") != 1 {
		s.t.Errorf("log: %swant one line with: %s", got, part)
	}
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
	decoder := xml.NewDecoder(strings.NewReader(strings.TrimSuffix(text, "\n")))
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

// A process is the whole program: a call of run, or, for what only a process has, the binary.
type process struct {
	addr   string
	path   string     // of its config file
	log    *logBuffer // what it logs, unless that goes elsewhere
	signal func(os.Signal)
	exited chan int // its exit status
}

// start calls run on a config file with that text.
func start(t testing.TB, config string, env map[string]string) *process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, config)
	return startRun(t, path, env)
}

// startOn calls run on a config file that is there.
func startOn(t testing.TB, path string) *process { return startRun(t, path, nil) }

func startRun(t testing.TB, path string, env map[string]string) *process {
	t.Helper()
	return startWith(t, path, env, func(p *process, vars []string) {
		ctx, cancel := context.WithCancel(context.Background())
		p.signal = func(os.Signal) { cancel() }
		getenv := func(name string) string {
			for _, v := range vars {
				if value, ok := strings.CutPrefix(v, name+"="); ok {
					return value
				}
			}
			return ""
		}
		go func() { p.exited <- run(ctx, []string{"-config", path}, getenv, io.Discard, p.log) }()
	})
}

// startBinary starts the real program. Its log goes to stderr, unless that is nil.
func startBinary(t testing.TB, path string, stderr *os.File) *process {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals to stop it with")
	}
	return startWith(t, path, nil, func(p *process, vars []string) {
		p.startCommand(t, vars, stderr, binary(t), "-config", path)
	})
}

func (p *process) startCommand(t testing.TB, vars []string, stderr *os.File, name string, args ...string) {
	t.Helper()
	command := exec.Command(name, args...)
	command.Env = append(os.Environ(), vars...)
	command.Stderr = p.log
	if stderr != nil {
		command.Stderr = stderr
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p.signal = func(s os.Signal) { _ = command.Process.Signal(s) }
	go func() {
		_ = command.Wait()
		p.exited <- command.ProcessState.ExitCode()
	}()
	t.Cleanup(func() { _ = command.Process.Kill() })
}

// startWith starts the program by calling launch, with a free port in its environment, and waits until it
// listens. It is stopped when the test ends.
func startWith(t testing.TB, path string, env map[string]string,
	launch func(p *process, vars []string)) *process {
	t.Helper()
	for range 10 { // another program may take the free port first
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := &process{path: path, log: new(logBuffer), exited: make(chan int, 1)}
		p.addr = listener.Addr().String()
		_, port, _ := net.SplitHostPort(p.addr)
		listener.Close()
		vars := []string{"PORT=" + port, "PLIVO_AUTH_TOKEN=" + env["PLIVO_AUTH_TOKEN"], "PUBLIC_URL="}
		launch(p, vars)
		waitUntil(t, p.log, func() bool {
			conn, err := net.Dial("tcp", p.addr)
			if err == nil {
				conn.Close()
			}
			return err == nil || len(p.exited) > 0
		})
		if len(p.exited) == 0 {
			t.Cleanup(func() {
				p.stop(t)
				noNumbers(t, "the log", p.log.String())
			})
			return p
		}
		t.Logf("did not start on port %s: %s", port, p.log)
	}
	t.Fatal("does not start")
	return nil
}

// stop ends the program; it must exit with 0.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.signal(os.Interrupt)
	if status := p.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// wait returns the exit status.
func (p *process) wait(t testing.TB) (status int) {
	t.Helper()
	select {
	case status = <-p.exited:
		p.exited <- status // for whoever asks again
	case <-time.After(patience):
		t.Fatalf("does not stop; log:\n%s", p.log)
	}
	return status
}

// buildDir holds the program that binary builds.
var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "number-masking"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(status)
}

// binary builds the program, once for all tests.
func binary(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "number-masking")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func (p *process) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
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

// call makes calls, one after the other, that must be told to dial 14156667778.
func (p *process) call(t testing.TB, times int) {
	t.Helper()
	want := fmt.Sprintf(connect, "14156667778") + "\n"
	for range times {
		if got := p.get(t, "/handleincoming/?"+form); got != want {
			t.Fatalf("answer %s, want %s", got, want)
		}
	}
}

// waitForAgent calls as the customer 14156667777 until that rings agent, or is rejected if that is "nobody".
func (p *process) waitForAgent(t testing.TB, agent string) {
	t.Helper()
	want := rejected + "\n"
	if agent != "nobody" {
		want = fmt.Sprintf(connect, agent) + "\n"
	}
	waitUntil(t, p.log, func() bool { return p.get(t, "/handleincoming/?"+form) == want })
}

// patience bounds waiting for what must happen; nothing waits for it to pass.
const patience = 60 * time.Second

// waitUntil looks until something holds. If it never does, the log is shown without the lines of which a
// test may cause thousands.
func waitUntil(t testing.TB, log *logBuffer, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			calls := regexp.MustCompile(`(?m)^.*msg=(dialling|"call ).*\n`)
			t.Fatalf("did not happen; log:\n%s", calls.ReplaceAllString(log.String(), ""))
		}
	}
}

// A logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) has(text string) bool { return strings.Contains(b.String(), text) }

func (b *logBuffer) waitFor(t testing.TB, text string) {
	t.Helper()
	b.waitForCount(t, text, 1)
}

func (b *logBuffer) waitForCount(t testing.TB, text string, n int) {
	t.Helper()
	waitUntil(t, b, func() bool { return strings.Count(b.String(), text) >= n })
}

// accountsFor checks that the log has a whole line for each call, or counts it among the dropped ones.
func (b *logBuffer) accountsFor(t testing.TB, calls int) {
	t.Helper()
	if n := accounted(b.String()); n != calls {
		t.Errorf("%d calls are logged or counted as dropped, of %d", n, calls)
	}
}

// accounted returns how many calls have a whole line in the log or are counted among the dropped ones.
func accounted(log string) (calls int) {
	calls = len(regexp.MustCompile(`(?m)^time=.* msg=dialling .* took=[0-9.]+[nµm]?s$`).FindAllString(log, -1))
	notice := regexp.MustCompile(`(?m)^level=WARN msg="log lines dropped" lines=([0-9]+)$`)
	for _, match := range notice.FindAllStringSubmatch(log, -1) {
		n, _ := strconv.Atoi(match[1])
		calls += n
	}
	return calls
}
