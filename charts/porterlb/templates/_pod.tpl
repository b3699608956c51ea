{{- /* The pod of the Deployment and of the DaemonSet. */ -}}
{{- define "porterlb.pod" -}}
metadata:
  labels:
    {{- include "porterlb.selector" . | nindent 4 }}
    # By these the command finds the replicas, whatever nameOverride is.
    app.kubernetes.io/part-of: porterlb
    app.kubernetes.io/component: replica
    {{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (deepCopy .Values.podAnnotations) .Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "porterlb.serviceAccount" . }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
    {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  # ARP, NDP and BGP use the network of the node.
  hostNetwork: true
  # PorterLB does not use the cluster's DNS, which may be down when PorterLB is needed.
  dnsPolicy: Default
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .Values.affinity (eq .Values.kind "Deployment") }}
  affinity:
    {{- if .Values.affinity }}
    {{- toYaml .Values.affinity | nindent 4 }}
    {{- else }}
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "porterlb.selector" . | nindent 14 }}
    {{- end }}
  {{- end }}
  tolerations:
    {{- if eq .Values.kind "Deployment" }}
    - key: node.kubernetes.io/not-ready
      operator: Exists
      effect: NoExecute
      tolerationSeconds: {{ .Values.tolerationSeconds }}
    - key: node.kubernetes.io/unreachable
      operator: Exists
      effect: NoExecute
      tolerationSeconds: {{ .Values.tolerationSeconds }}
    {{- end }}
    {{- if .Values.controlPlaneNodes }}
    - key: node-role.kubernetes.io/control-plane
      operator: Exists
      effect: NoSchedule
    {{- end }}
    {{- with .Values.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  containers:
    - name: manager
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      # Process 1 of a container does not get a SIGTERM that it has no handler for. Blocked, it waits for the manager's.
      command: [env, --block-signal=TERM, porterlb]
      # The last words of a manager that cannot start are in the pod's status: porterlb doctor shows them.
      terminationMessagePolicy: FallbackToLogsOnError
      args: [manager]
      env:
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: PORTERLB_HTTP
          value: {{ include "porterlb.http" . | quote }}
        - name: PORTERLB_HELLO_PORT
          value: {{ int .Values.hello.port | quote }}
        - name: PORTERLB_PROFILE
          value: {{ .Values.profile | quote }}
        - name: PORTERLB_RECORD_RING
          value: {{ .Values.recording.ring | int64 | toString | quote }}
        - name: PORTERLB_LOG_FORMAT
          value: {{ .Values.log.format | quote }}
        - name: PORTERLB_LOG_LEVEL
          value: {{ .Values.log.level | quote }}
        - name: PORTERLB_MARK_PODS_NOT_READY
          value: {{ ternary "true" "false" (eq (include "porterlb.marksPods" .) "true") | quote }}
        - name: PORTERLB_ANSWERS
          value: {{ .Values.layer2.answers | quote }}
        - name: PORTERLB_REBALANCE
          value: {{ .Values.layer2.rebalance | quote }}
        - name: PORTERLB_REBALANCE_AFTER
          value: {{ .Values.layer2.rebalanceAfter | toJson | quote }}
        - name: PORTERLB_REBALANCE_PACE
          value: {{ .Values.layer2.rebalancePace | toJson | quote }}
        - name: PORTERLB_SETTLE_AFTER
          value: {{ .Values.layer2.settleAfter | toJson | quote }}
        {{- range $key, $value := .Values.settings }}
        - name: PORTERLB_{{ snakecase $key | upper }}
          value: {{ $value | toJson | quote }}
        {{- end }}
        {{- with .Values.apiServer }}
        {{- if .host }}
        - name: KUBERNETES_SERVICE_HOST
          value: {{ .host | quote }}
        - name: KUBERNETES_SERVICE_PORT
          value: {{ int .port | quote }}
        {{- end }}
        {{- end }}
        # The one place that can be written to.
        - name: TMPDIR
          value: /run/porterlb
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: {{ int .Values.http.port }}
          protocol: TCP
        - name: hello
          containerPort: {{ int .Values.hello.port }}
          protocol: UDP
      startupProbe:
        httpGet:
          host: {{ include "porterlb.probeHost" . | quote }}
          port: http
          path: /healthz
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet:
          host: {{ include "porterlb.probeHost" . | quote }}
          port: http
          path: /healthz
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          host: {{ include "porterlb.probeHost" . | quote }}
          port: http
          path: /readyz
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 3
      # Root without root's rights: all capabilities are gone but those named. Another user would have none of them
      # (Kubernetes gives no ambient capabilities, and file capabilities need allowPrivilegeEscalation).
      securityContext:
        runAsUser: 0
        runAsGroup: 0
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
          add:
            - NET_RAW
            {{- if .Values.bgp.listenOnPrivilegedPort }}
            - NET_BIND_SERVICE
            {{- end }}
            {{- if ne .Values.layer2.answers "userspace" }}
            - BPF
            - NET_ADMIN
            {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: run
          mountPath: /run/porterlb
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: run
      # In memory: ExaBGP's configuration has the passwords of the peers.
      emptyDir:
        medium: Memory
        sizeLimit: 64Mi
{{- end -}}
