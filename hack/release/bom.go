package main

import (
	"bytes"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/generate/bin"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/licensedetect/local"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
)

// bom lists the modules that a binary was compiled from, as the binary itself says.
func (r *release) bom(binary string) ([]byte, error) {
	quiet := zerolog.Nop()
	generator, err := bin.NewGenerator(binary, bin.WithLogger(quiet), bin.WithIncludeStdlib(true),
		bin.WithVersionOverride(r.version), bin.WithLicenseDetector(local.NewDetector(quiet)))
	if err != nil {
		return nil, err
	}
	bom, err := generator.Generate()
	if err != nil {
		return nil, err
	}
	bom.Metadata.Timestamp = r.date.Format(time.RFC3339)
	var text bytes.Buffer
	encode := func() error {
		text.Reset()
		return cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
	}
	if err := encode(); err != nil {
		return nil, err
	}
	// A serial number is meant to be random; one that follows from the content is as unique, and the same every time.
	bom.SerialNumber = uuid.NewSHA1(uuid.NameSpaceURL, text.Bytes()).URN()
	return text.Bytes(), encode()
}
