#include "bad_requests.h"

#define BAD(name, data, says) { (name), (data), sizeof(data) - 1, 400, (says) },
#define LINE "POST /ok HTTP/1.1\r\n"
#define HOST "Host: a\r\n"
#define CHUNKED LINE HOST "Transfer-Encoding: chunked\r\n\r\n"

/* clang-format off */
const struct bad_request bad_requests[] = {
    /* The request line. */
    BAD("no target", "GET HTTP/1.1\r\n" HOST "\r\n", "request line")
    BAD("two spaces", "GET  /ok HTTP/1.1\r\n" HOST "\r\n", "request line")
    BAD("a space at the end", "GET /ok HTTP/1.1 \r\n" HOST "\r\n", "version")
    BAD("a space in the target", "GET /o k HTTP/1.1\r\n" HOST "\r\n", "version")
    BAD("a tab for a space", "GET\t/ok HTTP/1.1\r\n" HOST "\r\n", "request line")
    BAD("a space in front", " GET /ok HTTP/1.1\r\n" HOST "\r\n", "white space")
    BAD("no version", "GET /ok\r\n" HOST "\r\n", "request line")
    BAD("version 0.9", "GET /ok HTTP/0.9\r\n" HOST "\r\n", "HTTP/0.9")
    BAD("version 1.2", "GET /ok HTTP/1.2\r\n" HOST "\r\n", "HTTP/1.2")
    BAD("version 2.0", "GET /ok HTTP/2.0\r\n" HOST "\r\n", "HTTP/2.0")
    BAD("version in small letters", "GET /ok http/1.1\r\n" HOST "\r\n", "http/1.1")
    BAD("almost the preface of HTTP/2", "PRJ * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2.0")
    BAD("a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "control byte 0x16")
    BAD("not HTTP", "hello\r\n\r\n", "request line")
    BAD("a method that is no token", "G@T /ok HTTP/1.1\r\n" HOST "\r\n", "method")
    BAD("no method", " /ok HTTP/1.1\r\n" HOST "\r\n", "white space")
    BAD("a method without end", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" HOST "\r\n", "method")
    BAD("two empty lines in front", "\r\n\r\nGET /ok HTTP/1.1\r\n" HOST "\r\n", "empty lines")
    BAD("a bare line feed in front", "\nGET /ok HTTP/1.1\r\n" HOST "\r\n", "line feed")

    /* The target. */
    BAD("a percent without digits", "GET /ok%zz HTTP/1.1\r\n" HOST "\r\n", "'%'")
    BAD("a percent at the end", "GET /ok%2 HTTP/1.1\r\n" HOST "\r\n", "'%'")
    BAD("a raw byte above ASCII", "GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n", "0xc3")
    BAD("a fragment", "GET /ok#here HTTP/1.1\r\n" HOST "\r\n", "0x23")
    BAD("a relative target", "GET ok HTTP/1.1\r\n" HOST "\r\n", "'ok'")
    BAD("an authority as target", "CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n", "'a:443'")
    BAD("a star for GET", "GET * HTTP/1.1\r\n" HOST "\r\n", "'*'")
    BAD("an unknown scheme", "GET ftp://a/ok HTTP/1.1\r\n" HOST "\r\n", "ftp")
    BAD("an absolute target without authority", "GET http:///ok HTTP/1.1\r\n" HOST "\r\n", "http:///ok")
    BAD("a NUL in the target", "GET /o\0k HTTP/1.1\r\n" HOST "\r\n", "0x00")

    /* Lines. */
    BAD("bare line feeds", "GET /ok HTTP/1.1\nHost: a\n\n", "line feed")
    BAD("one bare line feed", "GET /ok HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "line feed")
    BAD("a bare carriage return", "GET /ok HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "carriage return")
    BAD("a carriage return for the end", "GET /ok HTTP/1.1\r\nHost: a\r\n\rX", "carriage return")
    BAD("two carriage returns", "GET /ok HTTP/1.1\r\r\n" HOST "\r\n", "carriage return")
    BAD("an empty line of LF", "GET /ok HTTP/1.1\r\n" HOST "\n", "line feed")

    /* Fields. */
    BAD("folding with a space", LINE HOST "X: a\r\n b\r\n\r\n", "white space")
    BAD("folding with a tab", LINE HOST "X: a\r\n\tb\r\n\r\n", "white space")
    BAD("folding of the first field", LINE " X: a\r\n" HOST "\r\n", "white space")
    BAD("a NUL in a value", LINE HOST "X: a\0b\r\n\r\n", "0x00")
    BAD("a control byte in a value", LINE HOST "X: a\x01" "b\r\n\r\n", "0x01")
    BAD("a DEL in a value", LINE HOST "X: a\x7f" "b\r\n\r\n", "0x7f")
    BAD("a space before the colon", LINE HOST "X : a\r\n\r\n", "request header")
    BAD("a tab before the colon", LINE HOST "X\t: a\r\n\r\n", "request header")
    BAD("a space inside a name", LINE HOST "X Y: a\r\n\r\n", "request header")
    BAD("no name", LINE HOST ": a\r\n\r\n", "request header")
    BAD("no colon", LINE HOST "nonsense\r\n\r\n", "request header")
    BAD("a raw byte in a name", LINE HOST "X\xe9: a\r\n\r\n", "request header")
    BAD("a bracket in a name", LINE HOST "X[0]: a\r\n\r\n", "request header")

    /* Host. */
    BAD("no Host", "GET /ok HTTP/1.1\r\nX: y\r\n\r\n", "Host: found 0")
    BAD("no field at all", "GET /ok HTTP/1.1\r\n\r\n", "Host: found 0")
    BAD("two Hosts", "GET /ok HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "Host: found 2")
    BAD("two equal Hosts", "GET /ok HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "Host: found 2")
    BAD("two Hosts in 1.0", "GET /ok HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "Host: found 2")
    BAD("a path in Host", "GET /ok HTTP/1.1\r\nHost: a/b\r\n\r\n", "Host 'a/b'")
    BAD("a user in Host", "GET /ok HTTP/1.1\r\nHost: u@a\r\n\r\n", "Host 'u@a'")
    BAD("a space in Host", "GET /ok HTTP/1.1\r\nHost: a b\r\n\r\n", "Host 'a b'")

    /* Content-Length. */
    BAD("two lengths", LINE HOST "Content-Length: 2\r\nContent-Length: 3\r\n\r\nab", "Content-Length")
    BAD("two equal lengths", LINE HOST "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", "Content-Length")
    BAD("a list of lengths", LINE HOST "Content-Length: 2, 2\r\n\r\nab", "Content-Length")
    BAD("a negative length", LINE HOST "Content-Length: -1\r\n\r\n", "Content-Length")
    BAD("a length with plus", LINE HOST "Content-Length: +2\r\n\r\nab", "Content-Length")
    BAD("a hexadecimal length", LINE HOST "Content-Length: 0x2\r\n\r\nab", "Content-Length")
    BAD("an empty length", LINE HOST "Content-Length:\r\n\r\n", "Content-Length")
    BAD("a length with a space inside", LINE HOST "Content-Length: 1 0\r\n\r\n", "Content-Length")
    BAD("a length beyond 64 bits", LINE HOST "Content-Length: 18446744073709551618\r\n\r\nab", "Content-Length")
    BAD("a length beyond 63 bits", LINE HOST "Content-Length: 9223372036854775808\r\n\r\nab", "Content-Length")

    /* Transfer-Encoding. */
    BAD("length, then chunked", LINE HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("chunked, then length", LINE HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "")
    BAD("gzip", LINE HOST "Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding")
    BAD("gzip, chunked", LINE HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("chunked, gzip", LINE HOST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("chunked, chunked", LINE HOST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("chunked twice", LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("identity and chunked", LINE HOST "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("xchunked", LINE HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("chunked with a parameter", LINE HOST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "Transfer-Encoding")
    BAD("an empty encoding", LINE HOST "Transfer-Encoding:\r\n\r\n", "Transfer-Encoding")
    BAD("chunked in 1.0", "POST /ok HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding")

    /* Chunks. */
    BAD("a chunk size that is no number", CHUNKED "g\r\n\r\n", "0x67 in a chunk size")
    BAD("no chunk size", CHUNKED "\r\n\r\n", "chunk size")
    BAD("a chunk size in C", CHUNKED "0x2\r\nab\r\n0\r\n\r\n", "chunk size")
    BAD("a negative chunk size", CHUNKED "-2\r\nab\r\n0\r\n\r\n", "chunk size")
    BAD("a space before a chunk size", CHUNKED " 2\r\nab\r\n0\r\n\r\n", "chunk size")
    BAD("a space behind a chunk size", CHUNKED "2 \r\nab\r\n0\r\n\r\n", "chunk size")
    BAD("a chunk size of 17 digits", CHUNKED "00000000000000002\r\nab\r\n0\r\n\r\n", "chunk size")
    BAD("a chunk size beyond 63 bits", CHUNKED "ffffffffffffffff\r\nab", "chunk size")
    BAD("a bare LF behind a chunk size", CHUNKED "2\nab\r\n0\r\n\r\n", "chunk size")
    BAD("a bare CR behind a chunk size", CHUNKED "2\rab\r\n0\r\n\r\n", "carriage return")
    BAD("a chunk longer than its size", CHUNKED "2\r\nabc\r\n0\r\n\r\n", "should have ended")
    BAD("a chunk that ends with LF", CHUNKED "2\r\nab\n0\r\n\r\n", "should have ended")
    BAD("a control byte in an extension", CHUNKED "2;a=\x01\r\nab\r\n0\r\n\r\n", "extension")
    BAD("a bare LF in an extension", CHUNKED "2;a\nab\r\n0\r\n\r\n", "extension")
    BAD("a bare CR in an extension", CHUNKED "2;a\rb\r\nab\r\n0\r\n\r\n", "extension")
    BAD("a trailer that is a request", CHUNKED "0\r\nGET /canary HTTP/1.1\r\n" HOST "\r\n", "trailer")
    BAD("a folded trailer", CHUNKED "0\r\nX: a\r\n b\r\n\r\n", "trailer")
    BAD("a bare LF behind a trailer", CHUNKED "0\r\nX: a\n\r\n", "trailer")
    BAD("a bare LF for the last line", CHUNKED "0\r\n\n", "trailer")
    BAD("a bare CR for the last line", CHUNKED "0\r\n\rX", "trailer")
};
/* clang-format on */

const size_t bad_request_count = sizeof(bad_requests) / sizeof(bad_requests[0]);
