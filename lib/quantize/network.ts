/** A float network as its ONNX file holds it, to be rewritten: all data inline, without nodes that do nothing. */
import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ResidualSkipError } from '../errors.js';
import { readExternalData, tensorsOf } from '../model/read/external.js';
import { readModelFile } from '../model/read/file.js';
import type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto } from '../model/read/proto.js';
import { decodeModelProto } from '../model/read/proto.js';
import { decodeTensor, toBigInt } from '../model/read/tensor-proto.js';

const FLOAT = 1;
/** float16, double and bfloat16. */
const OTHER_FLOATS = [10, 11, 16];
const INT32 = 6;
const INT8 = 3;
const UINT8 = 2;

/** Per-channel DequantizeLinear exists since then. */
const OLDEST_OPSET = 13;

/** Operators of quantised networks. */
const QUANTISED = /^(QuantizeLinear|DequantizeLinear|DynamicQuantizeLinear|QLinear.*|QGemm|.*Integer)$/;

type Elements = Float32Array | Int8Array | Uint8Array | Int32Array;

/** A tensor of a file. No `dims` for a scalar. */
export function tensorProto(name: string, data: Elements, dims: readonly number[] = []): TensorProto {
  const dataType =
    data instanceof Float32Array
      ? FLOAT
      : data instanceof Int32Array
        ? INT32
        : data instanceof Int8Array
          ? INT8
          : UINT8;
  const rawData = new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
  return { name, dataType, dims: [...dims], rawData };
}

export function attributeOf(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute?.find((attribute) => attribute.name === name);
}

export function intOf(node: NodeProto, name: string, otherwise: number): number {
  const { i } = attributeOf(node, name) ?? {};
  return i === undefined ? otherwise : Number(toBigInt(i));
}

/** A float32 tensor of the file. */
export interface Weights {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

export class Network {
  nodes: NodeProto[];
  /** Initialisers by name; those of Constant nodes, and of Identity nodes behind them, too. */
  readonly #tensors = new Map<string, TensorProto>();
  #producers = new Map<string, NodeProto>();
  #consumers = new Map<string, NodeProto[]>();

  constructor(readonly proto: ModelProto) {
    const { node = [], initializer = [] } = proto.graph!;
    for (const tensor of initializer) this.#tensors.set(tensor.name ?? '', tensor);
    this.nodes = node.filter((each) => {
      const [from = ''] = each.input ?? [];
      const [to = ''] = each.output ?? [];
      // PyTorch stores equal weights once, and passes them on.
      const same =
        each.opType === 'Identity' && !this.outputs.includes(to) ? this.#tensors.get(from) : undefined;
      const value = each.opType === 'Constant' ? attributeOf(each, 'value')?.t : same;
      if (value) this.#tensors.set(to, { ...value, name: to });
      return !value;
    });
    this.index();
  }

  /** Must be called when nodes were changed. */
  index(): void {
    this.#producers = new Map();
    this.#consumers = new Map();
    for (const node of this.nodes) {
      for (const name of node.output ?? []) this.#producers.set(name, node);
      for (const name of new Set([...(node.input ?? []), ...outerNames(node)])) {
        const known = this.#consumers.get(name);
        if (known) known.push(node);
        else this.#consumers.set(name, [node]);
      }
    }
  }

  get inputs(): string[] {
    return (this.proto.graph!.input ?? [])
      .map(({ name = '' }) => name)
      .filter((name) => !this.isConstant(name));
  }

  get outputs(): string[] {
    return (this.proto.graph!.output ?? []).map(({ name = '' }) => name);
  }

  /** Whether all numbers of the network that aren't integers are float32. */
  get isFloat32(): boolean {
    const types = [
      ...[...this.#tensors.values()].map(({ dataType }) => dataType),
      ...(this.proto.graph!.input ?? []).map(({ type }) => type?.tensorType?.elemType),
      ...this.nodes.map((node) => (node.opType === 'Cast' ? intOf(node, 'to', FLOAT) : FLOAT)),
    ];
    return !types.some((type) => OTHER_FLOATS.includes(type ?? FLOAT));
  }

  producer(name: string): NodeProto | undefined {
    return this.#producers.get(name);
  }

  consumers(name: string): readonly NodeProto[] {
    return this.#consumers.get(name) ?? [];
  }

  /** The only consumer of a value that is no output of the network. */
  onlyConsumer(name: string): NodeProto | undefined {
    const all = this.consumers(name);
    return all.length === 1 && !this.outputs.includes(name) ? all[0] : undefined;
  }

  isConstant(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** A float32 tensor of the file; undefined if `name` is none. */
  weights(name: string | undefined): Weights | undefined {
    const tensor = name === undefined ? undefined : this.#tensors.get(name);
    if (tensor?.dataType !== FLOAT) return undefined;
    const { shape, data } = decodeTensor(tensor);
    return { dims: shape, data: data as Float32Array };
  }

  setTensor(tensor: TensorProto): void {
    this.#tensors.set(tensor.name!, tensor);
  }

  /** A name that nothing has yet, which begins with `base`. */
  unusedName(base: string): string {
    let name = base;
    for (let i = 1; this.#tensors.has(name) || this.#producers.has(name) || this.inputs.includes(name); i++)
      name = `${base}_${i}`;
    return name;
  }

  /** Removes a node that passes its first input on. */
  bypass(node: NodeProto): void {
    const [from, to] = [node.input![0]!, node.output![0]!];
    this.nodes = this.nodes.filter((each) => each !== node);
    for (const other of this.nodes) rename(other, to, from);
    this.index();
  }

  /** The file's message, with only the tensors that are used. */
  build(outputs: GraphProto['output'] = this.proto.graph!.output): ModelProto {
    const used = new Set([...this.nodes.flatMap((node) => [...(node.input ?? []), ...outerNames(node)])]);
    for (const { name = '' } of outputs ?? []) used.add(name);
    const initializer = [...this.#tensors.values()].filter(({ name = '' }) => used.has(name));
    const input = this.proto.graph!.input?.filter(({ name = '' }) => !this.isConstant(name));
    return {
      ...this.proto,
      graph: { ...this.proto.graph, input, output: outputs, node: [...this.nodes], initializer },
    };
  }

  copy(): Network {
    const { graph, ...rest } = this.build();
    const node = graph!.node!.map((each) =>
      each.attribute?.some(({ g }) => g) ? structuredClone(each) : { ...each },
    );
    return new Network({ ...rest, graph: { ...graph, node } });
  }
}

/** Names that the subgraphs of a node may take from around it. */
function outerNames(node: NodeProto): string[] {
  return (node.attribute ?? []).flatMap(({ g }) =>
    g
      ? [
          ...(g.node ?? []).flatMap((inner) => [...(inner.input ?? []), ...outerNames(inner)]),
          ...(g.output ?? []).map(({ name = '' }) => name),
        ]
      : [],
  );
}

/** Makes a node, and its subgraphs, read another value. */
export function rename(node: NodeProto, from: string, to: string): void {
  if (node.input) node.input = node.input.map((name) => (name === from ? to : name));
  for (const { g } of node.attribute ?? []) for (const inner of g?.node ?? []) rename(inner, from, to);
}

/**
 * Reads the network of a file.
 * @returns also the bytes of the file, and of those that its weights lie in
 * @throws ResidualSkipError MODEL_NOT_FOUND, MODEL_CORRUPT, EXTERNAL_DATA, UNSUPPORTED_MODEL (an opset below 13, or a network
 * that is quantised already)
 */
export async function readNetwork(path: string): Promise<{ network: Network; bytes: number }> {
  // With its hash, the whole file is read; otherwise its large weights would be left out.
  const file = await readModelFile(path, () => true);
  const proto = decodeModelProto(file.bytes);
  const folder = dirname(file.location.model);
  const { data: external, files } = await readExternalData(proto, folder);
  const sizes = [...files.keys()].map(async (path) => (await stat(join(folder, path))).size);
  for (const tensor of tensorsOf(proto.graph)) {
    const data = external.get(tensor);
    if (!data) continue;
    tensor.rawData = data;
    delete tensor.dataLocation;
    delete tensor.externalData;
  }
  const standard = proto.opsetImport?.find(({ domain = '' }) => domain === '' || domain === 'ai.onnx');
  const opset = Number(toBigInt(standard?.version ?? 0));
  if (opset < OLDEST_OPSET) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      `model ${path}: it has opset ${opset}, but 8-bit weights by channel need ${OLDEST_OPSET}; convert it, for instance with ` +
        'onnx.version_converter, or export it again',
    );
  }
  const quantised = proto.graph?.node?.find(({ opType = '' }) => QUANTISED.test(opType));
  if (quantised) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      `model ${path}: it is quantised already (node '${quantised.name ?? ''}', ${quantised.opType}); give the float network`,
    );
  }
  const bytes = (await Promise.all(sizes)).reduce((sum, size) => sum + size, file.bytes.length);
  return { network: new Network(proto), bytes };
}
