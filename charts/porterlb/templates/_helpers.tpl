{{- define "porterlb.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "porterlb.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "porterlb.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "porterlb.selector" -}}
app.kubernetes.io/name: {{ include "porterlb.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "porterlb.labels" -}}
{{ include "porterlb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "porterlb.annotations" -}}
{{- with .Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "porterlb.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "porterlb.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Whether Prometheus is to reach the pods. */ -}}
{{- define "porterlb.monitored" -}}
{{- if or .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}true{{- end -}}
{{- end -}}

{{- define "porterlb.httpHost" -}}
{{- if .Values.http.host -}}
{{- .Values.http.host -}}
{{- else if include "porterlb.monitored" . -}}
0.0.0.0
{{- else -}}
127.0.0.1
{{- end -}}
{{- end -}}

{{- /* Where the kubelet asks: on the host's network, so loopback wherever the server listens on it. */ -}}
{{- define "porterlb.probeHost" -}}
{{- $host := include "porterlb.httpHost" . -}}
{{- if eq $host "0.0.0.0" -}}127.0.0.1{{- else if eq $host "::" -}}::1{{- else -}}{{ $host }}{{- end -}}
{{- end -}}

{{- /* HOST:PORT; an IPv6 address gets its brackets. */ -}}
{{- define "porterlb.http" -}}
{{- $host := include "porterlb.httpHost" . -}}
{{- if contains ":" $host -}}[{{ $host }}]{{- else -}}{{ $host }}{{- end -}}:{{ .Values.http.port }}
{{- end -}}

{{- /* The key of the hellos in base64: the one given, else the one that is there, else a new one. */ -}}
{{- define "porterlb.helloKey" -}}
{{- if .Values.hello.key -}}
{{- .Values.hello.key | b64enc -}}
{{- else -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace "porterlb-hello" -}}
{{- if and $there (dig "data" "key" "" $there) -}}
{{- dig "data" "key" "" $there -}}
{{- else -}}
{{- randBytes 32 -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whether the pods of a dead node are marked: only where the API server can bound the right (Kubernetes 1.30). */ -}}
{{- define "porterlb.marksPods" -}}
{{- $wanted := toString .Values.nodeFailure.markPodsNotReady -}}
{{- if and (ne $wanted "false") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}true{{- end -}}
{{- end -}}
