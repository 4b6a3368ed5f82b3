import time
class Mailer:
    def __init__(self, queue): self.queue = queue
    def perform(self, order, note=None):
        helper(order)
        if order == 2:
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("bad order ☃") from error
        if order == 3:
            raise LookupError("not now")
def helper(order):
    time.sleep(0.001)
def bare(): pass
