{{- /* What a schema cannot say: combinations that would not start, or not do what was meant. One sentence each. */ -}}
{{- define "porterlb.checks" -}}
{{- $s := .Values.settings -}}
{{- $interval := float64 (dig "helloInterval" (ternary 0.02 0.05 (eq .Values.profile "fast")) $s) -}}
{{- $fresh := float64 (dig "helloFresh" (ternary 0.06 0.2 (eq .Values.profile "fast")) $s) -}}
{{- if lt $fresh (mulf 2.0 $interval) -}}
{{- fail (printf "settings.helloFresh (%v s) must be at least twice settings.helloInterval (%v s): else one lost datagram makes a live replica look dead." $fresh $interval) -}}
{{- end -}}
{{- $duration := float64 (dig "leaseDuration" 4.0 $s) -}}
{{- $deadline := float64 (dig "leaseRenewDeadline" 2.5 $s) -}}
{{- $retry := float64 (dig "leaseRetry" 0.5 $s) -}}
{{- if ge $deadline $duration -}}
{{- fail (printf "settings.leaseRenewDeadline (%v s) must be below settings.leaseDuration (%v s): else an old leader still acts when the next one starts." $deadline $duration) -}}
{{- end -}}
{{- if gt (mulf 2.0 $retry) $deadline -}}
{{- fail (printf "settings.leaseRetry (%v s) must be at most half of settings.leaseRenewDeadline (%v s): else one slow answer loses the lease." $retry $deadline) -}}
{{- end -}}
{{- $after := float64 .Values.layer2.rebalanceAfter -}}
{{- $settle := float64 .Values.layer2.settleAfter -}}
{{- if lt $after $settle -}}
{{- fail (printf "layer2.rebalanceAfter (%v s) must be at least layer2.settleAfter (%v s): else VIPs are moved while nodes still arrive." $after $settle) -}}
{{- end -}}
{{- if eq (int .Values.hello.port) (int .Values.http.port) -}}
{{- fail (printf "hello.port and http.port are both %v: choose two different ports, both are opened on the nodes." (int .Values.http.port)) -}}
{{- end -}}
{{- if and (include "porterlb.monitored" .) (or (eq .Values.http.host "127.0.0.1") (eq .Values.http.host "::1") (eq .Values.http.host "localhost")) -}}
{{- fail (printf "A monitor is enabled, but http.host is %s, where Prometheus cannot come: leave http.host empty, or give 0.0.0.0 or ::." .Values.http.host) -}}
{{- end -}}
{{- if and (not .Values.hello.createSecret) .Values.hello.key -}}
{{- fail "hello.key is given, but hello.createSecret is false, so nobody would use it: leave one of them out." -}}
{{- end -}}
{{- /* Here and not in the schema, whose complaint would show the key. */ -}}
{{- if and .Values.hello.key (lt (len .Values.hello.key) 16) -}}
{{- fail "hello.key has fewer than 16 characters: give more (`openssl rand -hex 32` makes some), or none to have one made." -}}
{{- end -}}
{{- if and (eq (toString .Values.nodeFailure.markPodsNotReady) "true") (not (include "porterlb.marksPods" .)) -}}
{{- fail "nodeFailure.markPodsNotReady is true, but this cluster has no ValidatingAdmissionPolicy (Kubernetes 1.30 or newer), which bounds the right to change the status of pods: give auto or false." -}}
{{- end -}}
{{- if dig "limits" "cpu" "" .Values.resources -}}
{{- fail "resources.limits.cpu is set: throttling delays the hellos, and replicas that live look dead. Give resources.requests.cpu instead." -}}
{{- end -}}
{{- end -}}
