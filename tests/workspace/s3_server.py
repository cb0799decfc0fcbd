"""S3 as moto's server speaks it on the loopback interface, behind what fails by plan."""

import contextlib
import os
import threading


class Bucket:
    """Wraps moto's application. *plan* lists what happens to the next requests, by method; None means no fault."""

    def __init__(self, app):
        self.app = app
        self.plan = {}
        self.always = None
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            steps = self.plan.get(environ["REQUEST_METHOD"], [])
            step = steps.pop(0) if steps else self.always
        return step(environ, start_response, self.app) if step else self.app(environ, start_response)


@contextlib.contextmanager
def s3_server(name):
    """Yield a server with a bucket of this name; the environment leads there meanwhile."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log_request(self, *args):
            pass

    before = dict(os.environ)
    bucket = Bucket(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, bucket, threaded=True, request_handler=Silent)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http.server_port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        boto3.client("s3").create_bucket(Bucket=name)
        yield bucket
    finally:
        http.shutdown()
        http.server_close()
        os.environ.clear()
        os.environ.update(before)
