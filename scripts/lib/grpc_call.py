#!/usr/bin/env python3
"""One call of a gRPC service at a Unix socket: JSON in, JSON out.

usage: grpc_call.py [--namespace NAME] SOCKET FILE.proto PACKAGE.SERVICE/METHOD <REQUEST >ANSWER

FILE.proto lies in scripts/lib/api: the parts of containerd's and Kubernetes' interfaces that tests call, by the numbers
of their fields. The exit code is 1 when the service refuses; its words are on standard error then.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

API = pathlib.Path(__file__).resolve().parent / "api"


def load(name: str) -> descriptor_pool.DescriptorPool:
    """The types of a file, as protoc understands them."""
    pool = descriptor_pool.DescriptorPool()
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(
            ["protoc", f"--proto_path={API}", "--include_imports", f"--descriptor_set_out={out.name}", name],
            check=True,
        )
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    for file in files.file:
        pool.Add(file)
    return pool


def main() -> int:
    parser = argparse.ArgumentParser(description="One call of a gRPC service at a Unix socket.")
    parser.add_argument("--namespace", help="namespace of containerd")
    parser.add_argument("socket")
    parser.add_argument("proto")
    parser.add_argument("method")
    args = parser.parse_args()
    service, _, name = args.method.partition("/")
    method = load(args.proto).FindServiceByName(service).FindMethodByName(name)
    factory = message_factory.MessageFactory()
    request = json_format.Parse(sys.stdin.read() or "{}", factory.GetPrototype(method.input_type)())
    answer = factory.GetPrototype(method.output_type)
    metadata = [("containerd-namespace", args.namespace)] if args.namespace else []
    with grpc.insecure_channel(f"unix://{args.socket}") as channel:
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        call = kind(
            f"/{args.method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            got = call(request, metadata=metadata, timeout=60)
            # Of a stream the parts are put together: lists grow.
            whole = answer()
            for part in got if method.server_streaming else [got]:
                whole.MergeFrom(part)
        except grpc.RpcError as err:
            print(f"{err.code().name}: {err.details()}", file=sys.stderr)
            return 1
    print(json_format.MessageToJson(whole, preserving_proto_field_name=True, including_default_value_fields=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
