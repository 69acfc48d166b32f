"""Rooms drawn by VTK in software: the photograph, and the class of each of its pixels."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from tests.benchmarks.rooms.scenes import Placed, Scene

CLASS_STEP = 10  # between the grey values that two classes are drawn in
Patch = Callable[[np.random.Generator], np.ndarray]


class Stage:
    """A window that is never shown; its graphics context is made once."""

    def __init__(self) -> None:
        self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(self._renderer)
        self._renderer.AutomaticLightCreationOff()

    def draw(
        self, scene: Scene, patch: Patch, size: tuple[int, int], random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(photograph uint8 [H, W, 3], class ids uint8 [H, W]) of a scene; size is (W, H).

        ``patch`` gives the photographs uint8 [h, w, 3] that floor and walls are papered with.
        """
        renderer = self._renderer
        self._window.SetSize(*size)
        pieces = [(placed.piece.class_id, _actors(placed)) for placed in scene.placed]
        walls = _walls(scene.focus[1] > 0.5, patch, random)
        for actor in [*walls, *(actor for _, actors in pieces for actor in actors)]:
            renderer.AddActor(actor)
        _aim(renderer.GetActiveCamera(), scene, random)
        renderer.RemoveAllLights()
        for light in _lights(scene, random):
            renderer.AddLight(light)
        renderer.SetBackground(*random.uniform(0.3, 1, 3))
        shade = vtk.vtkSSAOPass()
        shade.SetRadius(0.25)
        shade.SetBias(0.01)
        shade.SetKernelSize(16)
        shade.BlurOn()
        shade.SetDelegatePass(vtk.vtkRenderStepsPass())
        renderer.SetPass(shade)
        photograph = self._pixels()
        renderer.SetPass(None)
        renderer.SetBackground(0, 0, 0)
        for class_id, actors in [(0, walls), *pieces]:
            for actor in actors:
                _flatten(actor, class_id * CLASS_STEP / 255)
        grey = self._pixels()[..., 0]
        renderer.RemoveAllViewProps()
        renderer.ReleaseGraphicsResources(self._window)
        return photograph, np.round(grey / CLASS_STEP).astype(np.uint8)

    def _pixels(self) -> np.ndarray:
        self._window.Render()
        reader = vtk.vtkWindowToImageFilter()
        reader.SetInput(self._window)
        reader.ReadFrontBufferOff()
        reader.Update()
        image = reader.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


@functools.cache
def _model(path: Path) -> list[tuple[vtk.vtkPolyData, vtk.vtkProperty, vtk.vtkTexture | None]]:
    """The parts of an OBJ file with their materials."""
    window, renderer, importer = vtk.vtkRenderWindow(), vtk.vtkRenderer(), vtk.vtkOBJImporter()
    window.AddRenderer(renderer)
    importer.SetFileName(str(path))
    named = [line.split(maxsplit=1)[1] for line in path.read_text("latin1").splitlines() if line.startswith("mtllib ")]
    if named and (materials := path.parent / named[0].strip()).is_file():
        importer.SetFileNameMTL(str(materials))
    importer.SetTexturePath(str(path.parent))
    importer.SetRenderWindow(window)
    importer.Update()
    parts, actors = [], renderer.GetActors()
    actors.InitTraversal()
    for _ in range(actors.GetNumberOfItems()):
        actor = actors.GetNextActor()
        data = actor.GetMapper().GetInput()
        if data.GetNumberOfCells():
            parts.append((data, actor.GetProperty(), actor.GetTexture()))
    return parts


def _actors(placed: Placed) -> list[vtk.vtkActor]:
    """The parts of a piece where it stands, as large as the catalogue says; models are y up. A broken one has none."""
    piece, parts = placed.piece, _model(placed.piece.model)
    if not parts:
        return []
    upright = np.eye(4)
    if piece.turn is not None:
        upright[:3, :3] = np.reshape(piece.turn, (3, 3))
    points = [vtk_to_numpy(data.GetPoints().GetData()) @ upright[:3, :3].T for data, _, _ in parts]
    low, high = np.min([one.min(0) for one in points], 0), np.max([one.max(0) for one in points], 0)
    if not np.isfinite(high - low).all():
        return []
    width, depth, height = (placed.grown * side for side in piece.size)
    move = vtk.vtkTransform()
    move.PostMultiply()
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(upright.ravel())
    move.Concatenate(matrix)
    move.Translate(-(low[0] + high[0]) / 2, -low[1], -(low[2] + high[2]) / 2)
    move.Scale(*(np.array([width, height, depth]) / np.maximum(high - low, 1e-6)))
    move.RotateX(90)
    move.RotateZ(placed.angle)
    move.Translate(*placed.at)
    return [_actor(data, material, texture, move) for data, material, texture in parts]


def _actor(
    data: vtk.vtkPolyData, material: vtk.vtkProperty, texture: vtk.vtkTexture | None, move: vtk.vtkTransform
) -> vtk.vtkActor:
    mapper, actor = vtk.vtkPolyDataMapper(), vtk.vtkActor()
    mapper.SetInputData(data)
    mapper.ScalarVisibilityOff()
    actor.SetMapper(mapper)
    own = actor.GetProperty()
    own.DeepCopy(material)
    own.SetAmbientColor(*own.GetDiffuseColor())
    own.SetAmbient(0.25)
    own.SetInterpolationToPhong()
    if texture is not None:
        actor.SetTexture(texture)
    actor.SetUserTransform(move)
    return actor


def _flatten(actor: vtk.vtkActor, grey: float) -> None:
    """Draws an actor in one grey value, without light."""
    actor.SetTexture(None)
    own = actor.GetProperty()
    own.LightingOff()
    own.SetColor(grey, grey, grey)
    own.SetOpacity(1)
    own.SetAmbient(1)
    own.SetDiffuse(0)
    own.SetSpecular(0)


def _walls(deep: bool, patch: Patch, random: np.random.Generator) -> list[vtk.vtkActor]:
    """Floor, back wall, perhaps a side wall, and up to three pictures; the back wall is behind what stands deep."""
    paper = patch(random)
    back = random.uniform(1.9, 3.2) if deep else random.uniform(1.2, 4)
    walls = [
        _plane((-8, -8, 0), (8, -8, 0), (-8, 8, 0), patch(random), random.uniform(2, 8), random),
        _plane((-8, back, 0), (8, back, 0), (-8, back, 4), paper, random.uniform(1, 4), random),
    ]
    if random.random() < 0.5:
        x = random.choice([-1, 1]) * random.uniform(2.5, 4)
        walls.append(_plane((x, -8, 0), (x, 8, 0), (x, -8, 4), paper, random.uniform(1, 4), random))
    for _ in range(random.integers(0, 4)):
        x, z = random.uniform(-3, 3), random.uniform(0.8, 1.8)
        right, top, y = x + random.uniform(0.3, 1.4), z + random.uniform(0.3, 1.2), back - 0.02
        walls.append(_plane((x, y, z), (right, y, z), (x, y, top), patch(random), 0.5, random))
    return walls


def _plane(
    origin: tuple[float, ...],
    right: tuple[float, ...],
    top: tuple[float, ...],
    paper: np.ndarray,
    repeated: float,
    random: np.random.Generator,
) -> vtk.vtkActor:
    """A rectangle, papered or in a colour."""
    source = vtk.vtkPlaneSource()
    source.SetOrigin(*origin)
    source.SetPoint1(*right)
    source.SetPoint2(*top)
    source.Update()
    data = source.GetOutput()
    places = data.GetPointData().GetTCoords()
    for index in range(places.GetNumberOfTuples()):
        places.SetTuple2(index, *(repeated * value for value in places.GetTuple2(index)))
    mapper, actor = vtk.vtkPolyDataMapper(), vtk.vtkActor()
    mapper.SetInputData(data)
    actor.SetMapper(mapper)
    own = actor.GetProperty()
    if random.random() < 0.75:
        actor.SetTexture(_texture(paper))
    else:
        own.SetColor(*(0.3 * random.uniform(0.35, 1, 3) + 0.7 * random.uniform(0.3, 1)))
    own.SetAmbient(0.3)
    own.SetDiffuse(0.7)
    return actor


def _texture(rgb: np.ndarray) -> vtk.vtkTexture:
    image, texture = vtk.vtkImageData(), vtk.vtkTexture()
    image.SetDimensions(rgb.shape[1], rgb.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(rgb[::-1]).reshape(-1, 3), deep=True))
    texture.SetInputData(image)
    texture.RepeatOn()
    texture.InterpolateOn()
    texture.MipmapOn()
    return texture


def _aim(camera: vtk.vtkCamera, scene: Scene, random: np.random.Generator) -> None:
    """From the front, at most 50 degrees aside, from a seated child's to a standing man's height of view."""
    side, up = math.radians(random.uniform(-50, 50)), math.radians(random.uniform(3, 32))
    opening, focus = random.uniform(35, 60), np.array(scene.focus)
    away = scene.reach / 2 / math.tan(math.radians(opening / 2)) * random.uniform(0.75, 1.35)
    towards = np.array([math.sin(side) * math.cos(up), -math.cos(side) * math.cos(up), math.sin(up)])
    camera.SetPosition(*(focus + away * towards))
    camera.SetFocalPoint(*(focus + random.uniform(-0.15, 0.15, 3) * scene.reach))
    camera.SetViewUp(0, 0, 1)
    camera.SetViewAngle(opening)
    camera.SetClippingRange(0.05, 40)


def _lights(scene: Scene, random: np.random.Generator) -> list[vtk.vtkLight]:
    """One at the camera and two from above, slightly coloured."""
    lights = []
    for least, most in ((0.2, 0.6), (0.4, 0.9), (0.1, 0.4)):
        light = vtk.vtkLight()
        light.SetIntensity(random.uniform(least, most))
        light.SetColor(*(1 - random.uniform(0, 0.2, 3)))
        if lights:
            light.SetLightTypeToSceneLight()
            light.SetPosition(random.uniform(-3, 3), random.uniform(-4, 1), random.uniform(2, 3.5))
            light.SetFocalPoint(*scene.focus)
        else:
            light.SetLightTypeToHeadlight()
        lights.append(light)
    return lights
