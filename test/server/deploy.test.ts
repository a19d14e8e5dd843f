import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createServer } from 'residual-skip-server';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { cli } from '../helpers/cli.js';
import { ROOT } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';

const DEPLOY = join(ROOT, 'deploy');
afterAll(removeFolders);

/** The documents of a file; misspelt YAML, and keys that are given twice, are errors. */
function documentsIn(file: string): unknown[] {
  return parseAllDocuments(readFileSync(join(DEPLOY, 'kubernetes', file), 'utf8')).map((document) => {
    expect([...document.errors, ...document.warnings]).toEqual([]);
    return document.toJS();
  });
}

const labels = z.record(z.string(), z.string());
const quantity = z.string().regex(/^\d+(m|Mi|Gi)?$/);
const selector = z.strictObject({ matchLabels: labels });
const metadata = z.strictObject({
  name: z.string(),
  labels: labels.optional(),
  annotations: labels.optional(),
});
const probe = z
  .strictObject({
    httpGet: z.strictObject({ path: z.string(), port: z.string() }),
    exec: z.strictObject({ command: z.array(z.string()) }),
    periodSeconds: z.int(),
    timeoutSeconds: z.int(),
    failureThreshold: z.int(),
  })
  .partial();
const resources = z.strictObject({ cpu: quantity, memory: quantity });
const container = z.strictObject({
  name: z.string(),
  image: z.string(),
  args: z.array(z.string()),
  ports: z.array(z.strictObject({ name: z.string(), containerPort: z.int() })).default([]),
  resources: z.strictObject({ requests: resources, limits: resources }).optional(),
  startupProbe: probe.optional(),
  readinessProbe: probe.optional(),
  livenessProbe: probe.optional(),
  lifecycle: z.strictObject({ preStop: probe }).optional(),
  securityContext: z
    .strictObject({
      allowPrivilegeEscalation: z.boolean(),
      readOnlyRootFilesystem: z.boolean(),
      capabilities: z.strictObject({ drop: z.array(z.string()) }),
    })
    .optional(),
  volumeMounts: z.array(z.strictObject({ name: z.string(), mountPath: z.string() })).default([]),
});
const pods = z.strictObject({
  metadata: z.strictObject({ labels, annotations: labels.optional() }),
  spec: z.strictObject({
    terminationGracePeriodSeconds: z.int().optional(),
    enableServiceLinks: z.boolean().optional(),
    securityContext: z
      .strictObject({
        runAsNonRoot: z.boolean(),
        runAsUser: z.int(),
        seccompProfile: z.strictObject({ type: z.string() }),
      })
      .optional(),
    containers: z.array(container).length(1),
    volumes: z
      .array(z.strictObject({ name: z.string(), configMap: z.strictObject({ name: z.string() }) }))
      .default([]),
  }),
});
const workload = { metadata, apiVersion: z.literal('apps/v1') };
const manifest = z.discriminatedUnion('kind', [
  z.strictObject({
    ...workload,
    kind: z.literal('Deployment'),
    spec: z.strictObject({
      replicas: z.int(),
      selector,
      strategy: z
        .strictObject({ rollingUpdate: z.strictObject({ maxUnavailable: z.int(), maxSurge: z.int() }) })
        .optional(),
      template: pods,
    }),
  }),
  z.strictObject({
    ...workload,
    kind: z.literal('StatefulSet'),
    spec: z.strictObject({
      serviceName: z.string(),
      replicas: z.int(),
      selector,
      template: pods,
      volumeClaimTemplates: z.array(
        z.strictObject({
          metadata,
          spec: z.strictObject({
            accessModes: z.array(z.enum(['ReadWriteOnce'])),
            resources: z.strictObject({ requests: z.strictObject({ storage: quantity }) }),
          }),
        }),
      ),
    }),
  }),
  z.strictObject({
    kind: z.literal('Service'),
    apiVersion: z.literal('v1'),
    metadata,
    spec: z.strictObject({
      selector: labels,
      ports: z.array(
        z.strictObject({
          name: z.string(),
          port: z.int(),
          targetPort: z.string(),
          appProtocol: z.string().optional(),
        }),
      ),
    }),
  }),
  z.strictObject({
    kind: z.literal('ConfigMap'),
    apiVersion: z.literal('v1'),
    metadata,
    data: labels,
  }),
  z.strictObject({
    kind: z.literal('PodDisruptionBudget'),
    apiVersion: z.literal('policy/v1'),
    metadata,
    spec: z.strictObject({ minAvailable: z.int(), selector }),
  }),
  z.strictObject({
    kind: z.literal('HorizontalPodAutoscaler'),
    apiVersion: z.literal('autoscaling/v2'),
    metadata,
    spec: z.strictObject({
      scaleTargetRef: z.strictObject({ apiVersion: z.string(), kind: z.string(), name: z.string() }),
      minReplicas: z.int(),
      maxReplicas: z.int(),
      metrics: z.array(
        z.strictObject({
          type: z.literal('Pods'),
          pods: z.strictObject({
            metric: z.strictObject({ name: z.string() }),
            target: z.strictObject({ type: z.literal('AverageValue'), averageValue: quantity }),
          }),
        }),
      ),
      behavior: z.record(
        z.enum(['scaleUp', 'scaleDown']),
        z.strictObject({ stabilizationWindowSeconds: z.int() }),
      ),
    }),
  }),
]);

const FILES = ['server.yaml', 'workers.yaml'];
const manifests = Object.fromEntries(
  FILES.map((file) => [file, documentsIn(file).map((document) => manifest.parse(document))]),
);

const workloads = Object.values(manifests)
  .flat()
  .filter((document) => document.kind === 'Deployment' || document.kind === 'StatefulSet');
const services = Object.values(manifests)
  .flat()
  .filter((document) => document.kind === 'Service');
const within = (some: Record<string, string>, all: Record<string, string>) =>
  Object.entries(some).every(([name, value]) => all[name] === value);

describe('the manifests for Kubernetes', () => {
  test.each(workloads.map((document) => [document.metadata.name, document] as const))(
    '%s: selectors, ports and volumes fit together',
    (_, { spec }) => {
      const { metadata, spec: pod } = spec.template;
      expect(within(spec.selector.matchLabels, metadata.labels)).toBe(true);
      const [only] = pod.containers;
      const ports = only!.ports.map(({ name }) => name);
      for (const given of [only!.startupProbe, only!.readinessProbe, only!.livenessProbe]) {
        if (given?.httpGet) expect(ports).toContain(given.httpGet.port);
      }
      for (const service of services.filter((one) => within(one.spec.selector, metadata.labels))) {
        for (const { targetPort } of service.spec.ports) expect(ports).toContain(targetPort);
      }
      const claims = 'volumeClaimTemplates' in spec ? spec.volumeClaimTemplates : [];
      const volumes = [...pod.volumes.map(({ name }) => name), ...claims.map((one) => one.metadata.name)];
      expect(only!.volumeMounts.map(({ name }) => name).sort()).toEqual(volumes.sort());
    },
  );

  test.each(services.map((document) => [document.metadata.name, document] as const))(
    'the service %s has pods',
    (_, { spec }) => {
      expect(workloads.some((one) => within(spec.selector, one.spec.template.metadata.labels))).toBe(true);
    },
  );

  test('commands have the options that the containers are started with', async () => {
    const ours = workloads
      .flatMap((one) => one.spec.template.spec.containers)
      .filter(({ image }) => image === 'residual-skip:latest');
    expect(ours).toHaveLength(2);
    for (const { args } of ours) {
      const { out } = await cli(args[0]!, '--help');
      for (const option of args.filter((arg) => arg.startsWith('--')))
        expect(out).toContain(`${option} `.trim());
    }
  });

  test('workers ask the queue that is there', () => {
    const worker = workloads.find(({ metadata }) => metadata.name === 'residual-skip-worker')!;
    const { args } = worker.spec.template.spec.containers[0]!;
    const { hostname, port } = new URL(args[args.indexOf('--queue') + 1]!);
    const service = services.find(({ metadata }) => metadata.name === hostname)!;
    expect(service.spec.ports.map(({ port }) => `${port}`)).toContain(port);
  });

  test('the server answers the probes, and has the metrics that scale it', async () => {
    const server = await createServer({ folders: [join(ROOT, 'demo')], port: 0, grpcPort: null });
    try {
      const { spec } = workloads.find(({ metadata }) => metadata.name === 'residual-skip')!;
      const { startupProbe, readinessProbe, livenessProbe } = spec.template.spec.containers[0]!;
      for (const given of [startupProbe, readinessProbe, livenessProbe]) {
        expect((await fetch(`${server.url}${given!.httpGet!.path}`)).status).toBe(200);
      }
      const metrics = await (await fetch(`${server.url}/metrics`)).text();
      const [adapter] = documentsIn('prometheus-adapter.yaml') as [
        { rules: { custom: { name: { as: string }; metricsQuery: string }[] } },
      ];
      const [rule] = adapter.rules.custom;
      const names = [...rule!.metricsQuery.matchAll(/residual_skip\w+/g)].map(([name]) => name);
      for (const name of new Set(names)) {
        expect(metrics).toContain(`# TYPE ${name.replace(/_(sum|count)$/, '')} histogram`);
      }
      const scaler = manifests['server.yaml']!.find(({ kind }) => kind === 'HorizontalPodAutoscaler');
      expect(scaler).toMatchObject({
        spec: {
          metrics: [{ pods: { metric: { name: rule!.name.as } } }],
          scaleTargetRef: { kind: 'Deployment', name: 'residual-skip' },
        },
      });
    } finally {
      await server.close();
    }
  });
});

const NGINX = ['nginx', '/usr/sbin/nginx'].find((name) => spawnSync(name, ['-v']).error === undefined);

(NGINX ? test : test.skip)(`nginx takes its configuration (${NGINX ?? "nginx isn't installed"})`, () => {
  const { status, stderr } = spawnSync(NGINX!, ['-t', '-p', folderOf({}), '-c', join(DEPLOY, 'nginx.conf')], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining('test is successful') });
});
