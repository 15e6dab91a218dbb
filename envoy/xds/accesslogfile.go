package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/envoy/headers"
)

// accessLogFields are the members of a line of the access log and what Envoy
// puts there; what there is none of is null. Package accesslog reads them. There
// is no path, query, address or token among them, and nothing a client can set:
// the x-dsp-* headers are the sidecar's own.
func accessLogFields() map[string]string {
	said := func(key string) string { return "%DYNAMIC_METADATA(" + filterExtAuthz + ":" + key + ")%" }
	header := func(name string) string { return "%REQ(" + name + ")%" }
	return map[string]string{
		"start_time":      "%START_TIME%",
		"duration_ms":     "%DURATION%",
		"status":          "%RESPONSE_CODE%",
		"flags":           "%RESPONSE_FLAGS%",
		"service":         "%ROUTE_NAME%",
		"method":          "%REQ(:METHOD)%",
		"protocol":        "%PROTOCOL%",
		"bytes_in":        "%BYTES_RECEIVED%",
		"bytes_out":       "%BYTES_SENT%",
		"request_id":      "%REQ(X-REQUEST-ID)%",
		"decision_id":     said(MetadataDecisionID),
		"reason":          said(MetadataReason),
		"revision":        said(MetadataRevision),
		"sidecar":         said(MetadataSidecar),
		"subject_hash":    said("subject"),
		"refused_product": said("product"),

		"refused_environment": said("environment"),
		"refused_version":     said("version"),
		"refused_abn":         said("abn"),
		"refused_software_id": said("software_id"),

		"abn":             header(headers.ABN),
		"product_id":      header(headers.ProductID),
		"product_version": header(headers.ProductVersion),
		"software_id":     header(headers.SoftwareID),
		"environment":     header(headers.Environment),
	}
}

// accessLogLines is the configuration of the file.
func accessLogLines(path string) *filelogv3.FileAccessLog {
	fields := map[string]*structpb.Value{}
	for k, v := range accessLogFields() {
		fields[k] = structpb.NewStringValue(v)
	}
	return &filelogv3.FileAccessLog{
		Path: path,
		AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		}},
	}
}

// lintAccessLogFile wants the file to hold exactly what it may.
func lintAccessLogFile(l *linter, where string, a *accesslogv3.AccessLog) {
	c := &filelogv3.FileAccessLog{}
	if l.open(where, a.GetTypedConfig(), c) {
		l.must(proto.Equal(c, accessLogLines(c.GetPath())), where, "an access log file of other fields")
	}
}
