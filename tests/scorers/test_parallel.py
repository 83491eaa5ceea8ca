import threading

from PIL import Image

from scorers.parallel import map_images


def test_results_keep_the_order_when_the_first_is_the_slowest():
    images = [Image.new("L", (1, 1), grey) for grey in range(2)]
    second_done = threading.Event()

    def grey_of(image):
        grey = image.getpixel((0, 0))
        if grey == 0:
            second_done.wait(timeout=1)  # with one core there is one worker, and nobody to wait for
        else:
            second_done.set()
        return grey

    assert map_images(grey_of, images) == [0, 1]


def test_an_image_is_touched_once_however_often_it_is_listed():
    first, second = (Image.new("L", (1, 1), grey) for grey in (3, 3))
    seen = []

    def remember(image):
        seen.append(id(image))
        return id(image)

    listed = [first, second, first, first, second]
    assert map_images(remember, listed) == [id(image) for image in listed]
    assert sorted(seen) == sorted([id(first), id(second)])


def test_nothing():
    assert map_images(lambda image: image, []) == []
