//go:build tools

package soak

import (
	_ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
	_ "github.com/grpc-ecosystem/grpc-health-probe"
	_ "github.com/summerwind/h2spec/cmd/h2spec"
)
